/* SPDX-License-Identifier: Apache-2.0 */
/* Figures and texts of the card behind a vGPU, for the generated answers and for NVML's field values. */
#include <sys/time.h>

#include "nvml.h"

nvmlReturn_t og_figures_of(nvmlDevice_t device, unsigned first, unsigned count, bool live, uint64_t *values)
{
    int index;
    nvmlReturn_t r = og_device_of(device, &index);

    if (r != NVML_SUCCESS)
        return r;
    og_view_lock();
    if (live)
        r = og_view_refresh();
    for (unsigned i = 0; r == NVML_SUCCESS && i < count; i++) {
        const struct og_card *card = &og_view.card[og_card_of(index)];

        if (!card->known[first + i])
            r = NVML_ERROR_NOT_SUPPORTED; /* as the card itself answers there */
        values[i] = card->figure[first + i];
    }
    og_view_unlock();
    return r;
}

nvmlReturn_t og_text_of(nvmlDevice_t device, unsigned number, char *to, unsigned length)
{
    int index;
    nvmlReturn_t r = og_device_of(device, &index);

    if (r != NVML_SUCCESS)
        return r;
    og_view_lock();
    if (*og_view.card[og_card_of(index)].text[number])
        r = og_put_text(to, length, og_view.card[og_card_of(index)].text[number]);
    else
        r = NVML_ERROR_NOT_SUPPORTED;
    og_view_unlock();
    return r;
}

static void one_value(nvmlDevice_t device, nvmlFieldValue_t *value, long long now_us)
{
    value->timestamp = now_us;
    value->latencyUsec = 0;
    value->nvmlReturn = NVML_ERROR_NOT_SUPPORTED;
    for (unsigned i = 0; i < sizeof(og_fields) / sizeof(og_fields[0]); i++) {
        uint64_t figure[2]; /* bits and type */

        if (og_fields[i].id != value->fieldId)
            continue;
        value->nvmlReturn = og_figures_of(device, og_fields[i].figure, 2, og_fields[i].live, figure);
        if (value->nvmlReturn != NVML_SUCCESS)
            return;
        value->value.ullVal = figure[0];
        value->valueType = (nvmlValueType_t)figure[1];
    }
}

OG_EXPORT nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int valuesCount, nvmlFieldValue_t *values)
{
    nvmlReturn_t r = og_device_of(device, NULL);
    struct timeval now;

    if (r != NVML_SUCCESS)
        return r;
    if (valuesCount <= 0 || !values)
        return NVML_ERROR_INVALID_ARGUMENT;
    gettimeofday(&now, NULL);
    for (int i = 0; i < valuesCount; i++)
        one_value(device, &values[i], now.tv_sec * 1000000ll + now.tv_usec);
    return NVML_SUCCESS;
}

OG_EXPORT nvmlReturn_t nvmlDeviceGetClock(nvmlDevice_t device, nvmlClockType_t clockType, nvmlClockId_t clockId,
                                          unsigned int *clockMHz)
{
    switch (clockId) {
    case 0:
        return nvmlDeviceGetClockInfo(device, clockType, clockMHz);
    case 1:
        return nvmlDeviceGetApplicationsClock(device, clockType, clockMHz);
    case 2:
        return nvmlDeviceGetDefaultApplicationsClock(device, clockType, clockMHz);
    case 3:
        return nvmlDeviceGetMaxCustomerBoostClock(device, clockType, clockMHz);
    default:
        return og_bad();
    }
}

OG_EXPORT nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_t *temperature)
{
    unsigned degrees;
    nvmlReturn_t r;

    if (!temperature)
        return og_bad();
    if (og_ready() == NVML_SUCCESS && temperature->version != NVML_VERSION_OF(nvmlTemperature_t, 1u))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    r = nvmlDeviceGetTemperature(device, temperature->sensorType, &degrees);
    if (r == NVML_SUCCESS)
        temperature->temperature = (int)degrees;
    return r;
}

OG_EXPORT nvmlReturn_t nvmlDeviceGetRowRemapperHistogram(nvmlDevice_t device, nvmlRowRemapperHistogramValues_t *values)
{
    uint64_t v[5];
    nvmlReturn_t r;

    if (!values)
        return og_bad();
    r = og_figures_of(device, FIG_RowRemapperHistogram_max, 5, false, v);
    if (r == NVML_SUCCESS)
        *values = (nvmlRowRemapperHistogramValues_t){ (unsigned)v[0], (unsigned)v[1], (unsigned)v[2], (unsigned)v[3],
                                                      (unsigned)v[4] };
    return r;
}

OG_EXPORT nvmlReturn_t nvmlDeviceGetAddressingMode(nvmlDevice_t device, nvmlDeviceAddressingMode_t *mode)
{
    nvmlReturn_t r = og_device_of(device, NULL);

    if (r != NVML_SUCCESS)
        return r;
    if (!mode)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (mode->version != NVML_VERSION_OF(nvmlDeviceAddressingMode_t, 1u))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    mode->value = 0; /* the card reaches no ordinary memory of the guest */
    return NVML_SUCCESS;
}

OG_EXPORT nvmlReturn_t nvmlGpmQueryDeviceSupport(nvmlDevice_t device, nvmlGpmSupport_t *gpmSupport)
{
    nvmlReturn_t r = og_device_of(device, NULL);

    if (r != NVML_SUCCESS)
        return r;
    if (!gpmSupport)
        return NVML_ERROR_INVALID_ARGUMENT;
    gpmSupport->isSupportedDevice = 0; /* samples of the whole card show other tenants' work */
    return NVML_SUCCESS;
}
