/* The part of NVML's C interface that this library answers: types, codes and sizes.
 *
 * NVIDIA's own header is not needed to build it. The layouts follow the public bindings
 * (nvidia-ml-py), and the asserts below fail the build if they drift.
 */
#ifndef GPUDETOUR_NVML_H
#define GPUDETOUR_NVML_H

#include <stddef.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))

typedef unsigned int nvmlReturn_t;
enum {
    NVML_SUCCESS = 0,
    NVML_ERROR_UNINITIALIZED = 1,
    NVML_ERROR_INVALID_ARGUMENT = 2,
    NVML_ERROR_NOT_SUPPORTED = 3,
    NVML_ERROR_NO_PERMISSION = 4,
    NVML_ERROR_NOT_FOUND = 6,
    NVML_ERROR_INSUFFICIENT_SIZE = 7,
    NVML_ERROR_DRIVER_NOT_LOADED = 9,
    NVML_ERROR_TIMEOUT = 10,
    NVML_ERROR_GPU_IS_LOST = 15,
    NVML_ERROR_MEMORY = 20,
    NVML_ERROR_ARGUMENT_VERSION_MISMATCH = 25,
    NVML_ERROR_UNKNOWN = 999,
};

typedef struct nvmlDevice *nvmlDevice_t;
typedef struct nvmlEventSet *nvmlEventSet_t;

typedef struct {
    unsigned long long total, free, used;
} nvmlMemory_t;

typedef struct {
    unsigned int version;
    unsigned long long total, reserved, free, used;
} nvmlMemory_v2_t;
#define NVML_MEMORY_V2 (2u << 24 | (unsigned int)sizeof(nvmlMemory_v2_t))

typedef struct {
    unsigned long long bar1Total, bar1Free, bar1Used;
} nvmlBAR1Memory_t;

typedef struct {
    char busIdLegacy[16];
    unsigned int domain, bus, device, pciDeviceId, pciSubSystemId;
    char busId[32];
} nvmlPciInfo_t;

typedef struct {
    unsigned int gpu, memory;
} nvmlUtilization_t;

typedef struct {
    unsigned int pid;
    unsigned long long usedGpuMemory;
    unsigned int gpuInstanceId, computeInstanceId;
} nvmlProcessInfo_t;

typedef struct {
    nvmlDevice_t device;
    unsigned long long eventType, eventData;
    unsigned int gpuInstanceId, computeInstanceId;
} nvmlEventData_t;

typedef struct {
    unsigned int multiprocessorCount, sharedCopyEngineCount, sharedDecoderCount;
    unsigned int sharedEncoderCount, sharedJpegCount, sharedOfaCount;
    unsigned int gpuInstanceSliceCount, computeInstanceSliceCount;
    unsigned long long memorySizeMB;
} nvmlDeviceAttributes_t;

typedef struct {
    unsigned int fieldId, scopeId;
    long long timestamp, latencyUsec;
    unsigned int valueType;
    nvmlReturn_t nvmlReturn;
    union {
        double d;
        unsigned int ui;
        unsigned long long ull;
    } value;
} nvmlFieldValue_t;

typedef struct {
    unsigned int version;
    unsigned char clusterUuid[16];
    nvmlReturn_t status;
    unsigned int cliqueId;
    unsigned char state; /* pynvml passes an unsigned int in version 2 */
    unsigned int healthMask;
} nvmlGpuFabricInfoV_t;

_Static_assert(sizeof(nvmlMemory_t) == 24 && sizeof(nvmlMemory_v2_t) == 40, "memory");
_Static_assert(sizeof(nvmlPciInfo_t) == 68 && sizeof(nvmlUtilization_t) == 8, "pci, utilization");
_Static_assert(sizeof(nvmlProcessInfo_t) == 24 && sizeof(nvmlEventData_t) == 32, "process, event");
_Static_assert(sizeof(nvmlDeviceAttributes_t) == 40, "attributes");
_Static_assert(sizeof(nvmlFieldValue_t) == 40 && sizeof(nvmlGpuFabricInfoV_t) == 36, "field, fabric");

enum {
    NVML_FI_DEV_NVLINK_LINK_COUNT = 91,
    NVML_FI_DEV_REMAPPED_COR = 142,
    NVML_FI_DEV_REMAPPED_UNC = 143,
    NVML_FI_DEV_REMAPPED_PENDING = 144,
    NVML_FI_DEV_REMAPPED_FAILURE = 145,
    NVML_FI_DEV_GET_GPU_RECOVERY_ACTION = 230,
    NVML_VALUE_TYPE_UNSIGNED_INT = 1,
};

enum {
    nvmlEventTypeSingleBitEccError = 0x1,
    nvmlEventTypeDoubleBitEccError = 0x2,
    nvmlEventTypePState = 0x4,
    nvmlEventTypeXidCriticalError = 0x8,
    nvmlEventTypeClock = 0x10,
};

#define NVML_NO_INSTANCE 0xFFFFFFFFu /* "no GPU instance": the event or process is the whole GPU's */

#endif
