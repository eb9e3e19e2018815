/* SPDX-License-Identifier: Apache-2.0 */
/* Prototypes of driver functions that the simulated GPU has beyond those that the guest library carries. */
#ifndef SIM_EXTRA_H
#define SIM_EXTRA_H

CUresult cuGetErrorName(CUresult error, const char **out);
CUresult cuGetErrorString(CUresult error, const char **out);
CUresult cuFuncGetName(const char **name, CUfunction function);
CUresult cuKernelGetName(const char **name, CUkernel kernel);
CUresult cuLibraryEnumerateKernels(CUkernel *kernels, unsigned nr, CUlibrary library);
CUresult cuLibraryGetManaged(CUdeviceptr *p, size_t *bytes, CUlibrary library, const char *name);
CUresult cuMemPrefetchAsync(CUdeviceptr p, size_t bytes, CUdevice device, CUstream stream);
CUresult cuModuleEnumerateFunctions(CUfunction *functions, unsigned nr, CUmodule module);
CUresult cuStreamAttachMemAsync(CUstream stream, CUdeviceptr p, size_t length, unsigned flags);

#endif
