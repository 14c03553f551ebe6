/* The one shared state of the library and the frame that every exported function runs in.
 *
 * BEGIN takes the lock, notices changed description files, waits while the function is told to
 * hang, and answers planned faults; END gives the lock back. Between them `state` may be read.
 */
#ifndef GPUDETOUR_STATE_H
#define GPUDETOUR_STATE_H

#include "machine.h"
#include "nvml.h"

/* Real handles are opaque pointers; ours point here. A handle stays the same slot for ever. */
struct nvmlDevice {
    int slot;
    int mig; /* position in the GPU's list of MIG devices, or -1 for the GPU itself */
};

struct state {
    struct machine machine;
    int users;           /* nvmlInit calls without their nvmlShutdown */
    unsigned generation; /* counts the times that the library came up */
    int enumerated[MAX_GPUS]; /* slots in index order, as found when the library came up */
    int enumerated_count;
};

extern struct state state;

/* Enters a function that needs nvmlInit; the lock is held afterwards whatever is returned. */
nvmlReturn_t begin(const char *function);
/* The same for a function about one device, which must be an enumerated one that is not lost. */
nvmlReturn_t begin_device(const char *function, nvmlDevice_t device);
/* The same for a function that only full GPUs answer, not MIG devices. */
nvmlReturn_t begin_gpu(const char *function, nvmlDevice_t device);
/* Leaves a function: gives the lock back and passes `code` through. */
nvmlReturn_t end(nvmlReturn_t code);

/* nvmlInit: reads the files again and enumerates the GPUs if the library is not up yet. */
nvmlReturn_t state_init(const char *function);
nvmlReturn_t state_shutdown(const char *function);

/* The folder of this library file, which also holds the description files. */
const char *state_folder(void);

nvmlDevice_t device_handle(int slot, int mig);
/* Index of an enumerated slot, or -1. */
int device_index(int slot);
/* Whether the slot's GPU still answers. */
int slot_is_lost(int slot);
struct gpu *gpu_of(nvmlDevice_t device);
struct mig *mig_of(nvmlDevice_t device);

nvmlReturn_t copy_text(const char *from, char *to, unsigned int size);
/* Stores a number of at least 0; an absent one is NVML_ERROR_NOT_SUPPORTED. */
nvmlReturn_t copy_number(int64_t from, unsigned int *to);

/* A function about one full GPU that answers with one number of it. */
#define GPU_NUMBER_FUNCTION(name, field)                            \
    EXPORT nvmlReturn_t name(nvmlDevice_t device, unsigned int *out) \
    {                                                               \
        nvmlReturn_t code = begin_gpu(#name, device);               \
        if (code == NVML_SUCCESS)                                   \
            code = copy_number(gpu_of(device)->field, out);         \
        return end(code);                                           \
    }

#endif
