/* The simulated machine: what the two description files say, as C values.
 *
 * A fact that is absent (a number of -1, an empty text) is answered with NVML_ERROR_NOT_SUPPORTED,
 * as the real library does for what a card lacks.
 */
#ifndef GPUDETOUR_MACHINE_H
#define GPUDETOUR_MACHINE_H

#include <stdint.h>

enum {
    MAX_GPUS = 32,
    MAX_LINKS = 36,
    MAX_MIGS = 8,
    MAX_PROCESSES = 64,
    MAX_EVENTS = 128,
    MAX_FAULTS = 32,
    TEXT = 96,
};

/* Numbers of a GPU that a description may set: field of the struct and key of the file alike. */
#define GPU_NUMBERS(X) \
    X(minor) X(order) X(brand) X(architecture) X(cc_major) X(cc_minor) \
    X(pci_device_id) X(pci_subsystem_id) X(numa_node) \
    X(memory_total) X(memory_reserved) X(memory_used) X(bar1_total) X(bar1_used) \
    X(utilization_gpu) X(utilization_memory) X(temperature) X(power_usage) X(power_limit) \
    X(fan_speed) X(power_state) X(clocks_event_reasons) X(persistence_mode) X(compute_mode) \
    X(display_active) X(display_mode) X(virtualization_mode) X(p2p) \
    X(ecc_mode) X(ecc_corrected_volatile) X(ecc_uncorrected_volatile) \
    X(ecc_corrected_aggregate) X(ecc_uncorrected_aggregate) X(retired_pages_pending) \
    X(remapped_correctable) X(remapped_uncorrectable) X(remapped_pending) X(remapped_failure) \
    X(recovery_action) X(mig_mode) X(mig_mode_pending) X(mig_max) X(fabric_state)

#define GPU_TEXTS(X) X(uuid) X(name) X(serial) X(bdf) X(cpus)

enum presence { PRESENT, LOST, OFF_BUS };

struct link {
    int number; /* NVLink number, or -1 */
    int to_switch;
    char remote_bdf[TEXT];
};

struct mig {
    char uuid[TEXT], profile[TEXT];
    unsigned gi, ci, gi_slices, ci_slices, multiprocessors;
    unsigned copy_engines, decoders, encoders, jpegs, ofas;
    unsigned long long memory_mib;
};

struct process {
    char kind[16], name[TEXT];
    unsigned pid, gi, ci;
    unsigned long long memory;
};

struct gpu {
    int known; /* a description has a section for this slot */
    enum presence presence;
#define FIELD(name) int64_t name;
    GPU_NUMBERS(FIELD)
#undef FIELD
#define FIELD(name) char name[TEXT];
    GPU_TEXTS(FIELD)
#undef FIELD
    int topology[MAX_GPUS]; /* nvmlGpuTopologyLevel_t to each other slot, or -1 */
    struct link links[MAX_LINKS];
    int migs_count, processes_count;
    struct mig migs[MAX_MIGS];
    struct process processes[MAX_PROCESSES];
};

struct event {
    unsigned long long sequence, type, data;
    int slot;
    unsigned gi, ci;
};

struct fault {
    char function[TEXT]; /* "*": every function */
    int slot;            /* -1: whatever GPU it is called for */
    unsigned code;
};

struct machine {
    char driver[TEXT], nvml[TEXT];
    char hang[TEXT]; /* function that hangs, "*": every one */
    int hang_slot;   /* for this GPU only, or -1 */
    int cuda;
    int64_t init_fault; /* what nvmlInit returns, or -1 */
    int64_t count;      /* what nvmlDeviceGetCount says in place of the truth, or -1 */
    int events_count, faults_count;
    struct event events[MAX_EVENTS];
    struct fault faults[MAX_FAULTS];
    struct gpu gpus[MAX_GPUS];
};

/* Fills `machine` from the profile at `profile`, then lays the control file at `control` over it;
 * a missing control file is an empty one. Returns 0, or -1 after a line on stderr that names file
 * and line number. */
int machine_read(struct machine *machine, const char *profile, const char *control);

/* Reads "DDDD:BB:DD.F", "DDDDDDDD:BB:DD.F" or "BB:DD.F" (hex). Returns 0, or -1 if it is none. */
int parse_bdf(const char *text, unsigned *domain, unsigned *bus, unsigned *device);

#endif
