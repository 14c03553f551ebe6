/* Which GPUs there are, and what they are: everything that does not change while they run. */
#include "state.h"

#include <stdio.h>
#include <string.h>

EXPORT nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *out)
{
    nvmlReturn_t code = begin(__func__);
    if (code == NVML_SUCCESS)
        code = copy_number(
            state.machine.count >= 0 ? state.machine.count : state.enumerated_count, out);
    return end(code);
}

/* A lost GPU keeps its place in the count, but gives no handle. */
static nvmlReturn_t hand_out(int slot, int mig, nvmlDevice_t *out)
{
    if (slot_is_lost(slot))
        return NVML_ERROR_GPU_IS_LOST;
    *out = device_handle(slot, mig);
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *out)
{
    nvmlReturn_t code = begin(__func__);
    if (code == NVML_SUCCESS) {
        if (!out || index >= (unsigned int)state.enumerated_count)
            code = NVML_ERROR_INVALID_ARGUMENT;
        else
            code = hand_out(state.enumerated[index], -1, out);
    }
    return end(code);
}

static nvmlReturn_t find_uuid(const char *uuid, nvmlDevice_t *out)
{
    for (int i = 0; i < state.enumerated_count; i++) {
        int slot = state.enumerated[i];
        const struct gpu *gpu = &state.machine.gpus[slot];
        if (strcmp(gpu->uuid, uuid) == 0)
            return hand_out(slot, -1, out);
        for (int mig = 0; mig < gpu->migs_count; mig++)
            if (strcmp(gpu->migs[mig].uuid, uuid) == 0)
                return hand_out(slot, mig, out);
    }
    return NVML_ERROR_NOT_FOUND;
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *out)
{
    nvmlReturn_t code = begin(__func__);
    if (code == NVML_SUCCESS)
        code = uuid && out ? find_uuid(uuid, out) : NVML_ERROR_INVALID_ARGUMENT;
    return end(code);
}

static nvmlReturn_t find_bdf(const char *bdf, nvmlDevice_t *out)
{
    unsigned domain, bus, device, domain2, bus2, device2;
    if (parse_bdf(bdf, &domain, &bus, &device) != 0)
        return NVML_ERROR_INVALID_ARGUMENT;
    for (int i = 0; i < state.enumerated_count; i++) {
        int slot = state.enumerated[i];
        if (parse_bdf(state.machine.gpus[slot].bdf, &domain2, &bus2, &device2) == 0 &&
            domain == domain2 && bus == bus2 && device == device2)
            return hand_out(slot, -1, out);
    }
    return NVML_ERROR_NOT_FOUND;
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bdf, nvmlDevice_t *out)
{
    nvmlReturn_t code = begin(__func__);
    if (code == NVML_SUCCESS)
        code = bdf && out ? find_bdf(bdf, out) : NVML_ERROR_INVALID_ARGUMENT;
    return end(code);
}

/* For MIG devices the driver appends the profile: "NVIDIA A100-SXM4-40GB MIG 1g.5gb". */
EXPORT nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *out, unsigned int size)
{
    nvmlReturn_t code = begin_device(__func__, device);
    if (code == NVML_SUCCESS) {
        char name[2 * TEXT + 8];
        const struct mig *mig = mig_of(device);
        snprintf(name, sizeof name, mig ? "%s MIG %s" : "%s", gpu_of(device)->name,
                 mig ? mig->profile : "");
        code = copy_text(name, out, size);
    }
    return end(code);
}

EXPORT nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *out, unsigned int size)
{
    nvmlReturn_t code = begin_device(__func__, device);
    if (code == NVML_SUCCESS) {
        const struct mig *mig = mig_of(device);
        code = copy_text(mig ? mig->uuid : gpu_of(device)->uuid, out, size);
    }
    return end(code);
}

EXPORT nvmlReturn_t nvmlDeviceGetSerial(nvmlDevice_t device, char *out, unsigned int size)
{
    nvmlReturn_t code = begin_gpu(__func__, device);
    return end(code != NVML_SUCCESS ? code : copy_text(gpu_of(device)->serial, out, size));
}

EXPORT nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned int *out)
{
    nvmlReturn_t code = begin_gpu(__func__, device);
    return end(code != NVML_SUCCESS ? code : copy_number(device_index(device->slot), out));
}

static nvmlReturn_t fill_pci(const struct gpu *gpu, nvmlPciInfo_t *out)
{
    if (!out)
        return NVML_ERROR_INVALID_ARGUMENT;
    memset(out, 0, sizeof *out);
    if (parse_bdf(gpu->bdf, &out->domain, &out->bus, &out->device) != 0)
        return NVML_ERROR_NOT_SUPPORTED;
    snprintf(out->busId, sizeof out->busId, "%08X:%02X:%02X.0", out->domain, out->bus & 0xFF,
             out->device & 0xFF);
    snprintf(out->busIdLegacy, sizeof out->busIdLegacy, "%04X:%02X:%02X.0", out->domain & 0xFFFF,
             out->bus & 0xFF, out->device & 0xFF);
    out->pciDeviceId = gpu->pci_device_id < 0 ? 0 : (unsigned int)gpu->pci_device_id;
    out->pciSubSystemId = gpu->pci_subsystem_id < 0 ? 0 : (unsigned int)gpu->pci_subsystem_id;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *out)
{
    nvmlReturn_t code = begin_gpu(__func__, device);
    return end(code != NVML_SUCCESS ? code : fill_pci(gpu_of(device), out));
}

EXPORT nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor)
{
    nvmlReturn_t code = begin_device(__func__, device);
    if (code == NVML_SUCCESS) {
        const struct gpu *gpu = gpu_of(device);
        if (!major || !minor)
            code = NVML_ERROR_INVALID_ARGUMENT;
        else if (gpu->cc_major < 0 || gpu->cc_minor < 0)
            code = NVML_ERROR_NOT_SUPPORTED;
        else {
            *major = (int)gpu->cc_major;
            *minor = (int)gpu->cc_minor;
        }
    }
    return end(code);
}

GPU_NUMBER_FUNCTION(nvmlDeviceGetMinorNumber, minor)
GPU_NUMBER_FUNCTION(nvmlDeviceGetBrand, brand)
GPU_NUMBER_FUNCTION(nvmlDeviceGetArchitecture, architecture)
GPU_NUMBER_FUNCTION(nvmlDeviceGetVirtualizationMode, virtualization_mode)
