/* SPDX-License-Identifier: Apache-2.0 */
/* Finds ivshmem devices among the guest's PCI devices. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core.h"

const char *og_pci_path = "/sys/bus/pci/devices";

static unsigned long read_id(const char *device, const char *file)
{
    char path[512], text[32] = "";
    ssize_t n = -1;
    int fd;

    if (snprintf(path, sizeof(path), "%s/%s/%s", og_pci_path, device, file) >= (int)sizeof(path))
        return 0;
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        n = read(fd, text, sizeof(text) - 1);
        close(fd);
    }
    return n > 0 ? strtoul(text, NULL, 16) : 0;
}

bool og_pci_device(unsigned n, bool wc, char *path, size_t room)
{
    DIR *devices = opendir(og_pci_path);
    struct dirent *d;
    bool found = false;

    while (devices && !found && (d = readdir(devices))) {
        if (d->d_name[0] == '.' || read_id(d->d_name, "vendor") != OC_PCI_VENDOR ||
            read_id(d->d_name, "device") != OC_PCI_DEVICE || n-- > 0)
            continue;
        found = snprintf(path, room, "%s/%s/resource2%s", og_pci_path, d->d_name, wc ? "_wc" : "") < (int)room;
    }
    if (devices)
        closedir(devices);
    return found;
}
