/* How GPUs reach each other, the processors and the memory of the machine. */
#include "state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    NVML_TOPOLOGY_INTERNAL = 0,
    NVML_NVLINK_DEVICE_TYPE_GPU = 0,
    NVML_NVLINK_DEVICE_TYPE_SWITCH = 2,
    NVML_P2P_CAPS_INDEX_NVLINK = 2,
    NVML_P2P_CAPS_INDEX_UNKNOWN = 5,
    NVML_P2P_STATUS_OK = 0,
    NVML_P2P_STATUS_NOT_SUPPORTED = 5,
};

/* Enters a function about two GPUs. */
static nvmlReturn_t begin_pair(const char *function, nvmlDevice_t first, nvmlDevice_t second)
{
    nvmlReturn_t code = begin_gpu(function, second);
    if (code == NVML_SUCCESS) {
        end(code);
        code = begin_gpu(function, first);
    }
    return code;
}

EXPORT nvmlReturn_t nvmlDeviceGetTopologyCommonAncestor(nvmlDevice_t first, nvmlDevice_t second,
                                                        unsigned int *out)
{
    nvmlReturn_t code = begin_pair(__func__, first, second);
    if (code == NVML_SUCCESS)
        code = copy_number(
            first == second ? NVML_TOPOLOGY_INTERNAL : gpu_of(first)->topology[second->slot], out);
    return end(code);
}

/* Two GPUs split by MIG do not reach each other, and their links are down. */
static int link_is_up(const struct gpu *gpu, unsigned int link)
{
    return gpu->links[link].number >= 0 && gpu->mig_mode <= 0;
}

static int linked(const struct gpu *first, const struct gpu *second)
{
    unsigned domain, bus, device, domain2, bus2, device2;
    if (parse_bdf(second->bdf, &domain, &bus, &device) != 0)
        return 0;
    for (unsigned int i = 0; i < MAX_LINKS; i++) {
        const struct link *link = &first->links[i];
        if (!link_is_up(first, i))
            continue;
        if (link->to_switch && second->links[i].to_switch)
            return 1;
        if (parse_bdf(link->remote_bdf, &domain2, &bus2, &device2) == 0 && domain == domain2 &&
            bus == bus2 && device == device2)
            return 1;
    }
    return 0;
}

static nvmlReturn_t p2p(const struct gpu *first, const struct gpu *second, unsigned int index,
                        unsigned int *out)
{
    if (!out || index >= NVML_P2P_CAPS_INDEX_UNKNOWN)
        return NVML_ERROR_INVALID_ARGUMENT;
    int works = index == NVML_P2P_CAPS_INDEX_NVLINK
                    ? linked(first, second)
                    : first->p2p > 0 && second->p2p > 0 && first->mig_mode <= 0 &&
                          second->mig_mode <= 0;
    *out = works ? NVML_P2P_STATUS_OK : NVML_P2P_STATUS_NOT_SUPPORTED;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetP2PStatus(nvmlDevice_t first, nvmlDevice_t second,
                                           unsigned int index, unsigned int *out)
{
    nvmlReturn_t code = begin_pair(__func__, first, second);
    return end(code != NVML_SUCCESS ? code : p2p(gpu_of(first), gpu_of(second), index, out));
}

/* Enters a function about one NVLink, which must exist on the card. */
static nvmlReturn_t begin_link(const char *function, nvmlDevice_t device, unsigned int link)
{
    nvmlReturn_t code = begin_gpu(function, device);
    if (code != NVML_SUCCESS)
        return code;
    if (link >= MAX_LINKS)
        return NVML_ERROR_INVALID_ARGUMENT;
    return gpu_of(device)->links[link].number < 0 ? NVML_ERROR_NOT_SUPPORTED : NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t device, unsigned int link,
                                             unsigned int *out)
{
    nvmlReturn_t code = begin_link(__func__, device, link);
    return end(code != NVML_SUCCESS ? code : copy_number(link_is_up(gpu_of(device), link), out));
}

EXPORT nvmlReturn_t nvmlDeviceGetNvLinkRemoteDeviceType(nvmlDevice_t device, unsigned int link,
                                                        unsigned int *out)
{
    nvmlReturn_t code = begin_link(__func__, device, link);
    if (code == NVML_SUCCESS)
        code = copy_number(gpu_of(device)->links[link].to_switch ? NVML_NVLINK_DEVICE_TYPE_SWITCH
                                                                 : NVML_NVLINK_DEVICE_TYPE_GPU,
                           out);
    return end(code);
}

EXPORT nvmlReturn_t nvmlDeviceGetNvLinkRemotePciInfo_v2(nvmlDevice_t device, unsigned int link,
                                                        nvmlPciInfo_t *out)
{
    nvmlReturn_t code = begin_link(__func__, device, link);
    if (code == NVML_SUCCESS && !out)
        code = NVML_ERROR_INVALID_ARGUMENT;
    if (code == NVML_SUCCESS) {
        memset(out, 0, sizeof *out);
        if (parse_bdf(gpu_of(device)->links[link].remote_bdf, &out->domain, &out->bus,
                      &out->device) != 0)
            code = NVML_ERROR_NOT_SUPPORTED;
        else
            snprintf(out->busId, sizeof out->busId, "%08X:%02X:%02X.0", out->domain,
                     out->bus & 0xFF, out->device & 0xFF);
    }
    return end(code);
}

static void set_bit(unsigned long *words, unsigned int size, unsigned long bit)
{
    const unsigned long width = 8 * sizeof(unsigned long);
    if (bit / width < size)
        words[bit / width] |= 1ul << bit % width;
}

/* Reads a list as in sysfs ("0-31,64-95") into a bit mask; what does not fit is left out. */
static nvmlReturn_t cpu_mask(const char *list, unsigned int size, unsigned long *out)
{
    if (!out || size == 0)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (list[0] == '\0')
        return NVML_ERROR_NOT_SUPPORTED;
    memset(out, 0, size * sizeof *out);
    while (*list != '\0') {
        char *end_of_number;
        unsigned long first = strtoul(list, &end_of_number, 10), last = first;
        if (*end_of_number == '-')
            last = strtoul(end_of_number + 1, &end_of_number, 10);
        for (unsigned long cpu = first; cpu <= last && cpu < 8192; cpu++)
            set_bit(out, size, cpu);
        if (*end_of_number != ',')
            break;
        list = end_of_number + 1;
    }
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetCpuAffinity(nvmlDevice_t device, unsigned int size,
                                             unsigned long *out)
{
    nvmlReturn_t code = begin_gpu(__func__, device);
    return end(code != NVML_SUCCESS ? code : cpu_mask(gpu_of(device)->cpus, size, out));
}

EXPORT nvmlReturn_t nvmlDeviceGetMemoryAffinity(nvmlDevice_t device, unsigned int size,
                                                unsigned long *out, unsigned int scope)
{
    nvmlReturn_t code = begin_gpu(__func__, device);
    if (code == NVML_SUCCESS && (!out || size == 0 || scope > 1))
        code = NVML_ERROR_INVALID_ARGUMENT;
    if (code == NVML_SUCCESS && gpu_of(device)->numa_node < 0)
        code = NVML_ERROR_NOT_SUPPORTED;
    if (code == NVML_SUCCESS) {
        memset(out, 0, size * sizeof *out);
        set_bit(out, size, (unsigned long)gpu_of(device)->numa_node);
    }
    return end(code);
}

/* Only where GPU memory is a NUMA node of the system (Grace); never on the machines simulated. */
EXPORT nvmlReturn_t nvmlDeviceGetNumaNodeId(nvmlDevice_t device, unsigned int *out)
{
    nvmlReturn_t code = begin_gpu(__func__, device);
    return end(code != NVML_SUCCESS ? code : copy_number(-1, out));
}

EXPORT nvmlReturn_t nvmlDeviceGetGpuFabricInfoV(nvmlDevice_t device, nvmlGpuFabricInfoV_t *out)
{
    nvmlReturn_t code = begin_gpu(__func__, device);
    if (code == NVML_SUCCESS && !out)
        code = NVML_ERROR_INVALID_ARGUMENT;
    if (code == NVML_SUCCESS && out->version != (2u << 24 | sizeof *out))
        code = NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    if (code == NVML_SUCCESS && gpu_of(device)->fabric_state < 0)
        code = NVML_ERROR_NOT_SUPPORTED;
    if (code == NVML_SUCCESS) {
        memset(out->clusterUuid, 0, sizeof out->clusterUuid);
        out->status = NVML_SUCCESS;
        out->cliqueId = 0;
        out->state = (unsigned char)gpu_of(device)->fabric_state;
        out->healthMask = 0;
    }
    return end(code);
}
