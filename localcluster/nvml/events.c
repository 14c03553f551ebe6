/* Events, delivered once to each event set that registered for them before they happened.
 *
 * A wait sleeps outside the lock and is woken by inotify when a description file changes.
 */
#include "state.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

enum {
    /* A waiter looks up at least this often: shutdown by another thread writes no file. */
    LONGEST_NAP_MS = 250,
    /* The same without inotify, whose instances are limited per user. */
    LONGEST_BLIND_NAP_MS = 20,
};

struct nvmlEventSet {
    struct nvmlEventSet *next;
    unsigned long long types[MAX_GPUS]; /* event types registered for each slot */
    unsigned long long seen;            /* sequence number of the last event dealt with */
    unsigned generation;
    int waiters, freed;
    int notify; /* inotify descriptor, or -1 */
};

static struct nvmlEventSet *sets;

static struct nvmlEventSet **find(nvmlEventSet_t set)
{
    struct nvmlEventSet **at = &sets;
    while (*at && *at != set)
        at = &(*at)->next;
    return *at && !(*at)->freed ? at : NULL;
}

static void release(struct nvmlEventSet *set)
{
    struct nvmlEventSet **at = &sets;
    if (!set->freed || set->waiters > 0)
        return;
    while (*at != set)
        at = &(*at)->next;
    *at = set->next;
    if (set->notify >= 0)
        close(set->notify);
    free(set);
}

static unsigned long long last_sequence(void)
{
    unsigned long long last = 0;
    for (int i = 0; i < state.machine.events_count; i++)
        if (state.machine.events[i].sequence > last)
            last = state.machine.events[i].sequence;
    return last;
}

static int watch_folder(void)
{
    int notify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (notify < 0)
        return -1;
    if (inotify_add_watch(notify, state_folder(), IN_MOVED_TO | IN_CLOSE_WRITE | IN_DELETE) < 0) {
        close(notify);
        return -1;
    }
    return notify;
}

static nvmlReturn_t create(nvmlEventSet_t *out)
{
    struct nvmlEventSet *set = out ? calloc(1, sizeof *set) : NULL;
    if (!set)
        return out ? NVML_ERROR_MEMORY : NVML_ERROR_INVALID_ARGUMENT;
    set->next = sets;
    set->seen = last_sequence();
    set->generation = state.generation;
    set->notify = watch_folder();
    sets = set;
    *out = set;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *out)
{
    nvmlReturn_t code = begin(__func__);
    return end(code != NVML_SUCCESS ? code : create(out));
}

EXPORT nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set)
{
    nvmlReturn_t code = begin(__func__);
    if (code == NVML_SUCCESS && !find(set))
        code = NVML_ERROR_INVALID_ARGUMENT;
    if (code == NVML_SUCCESS) {
        set->freed = 1;
        release(set);
    }
    return end(code);
}

/* Cards without ECC have no ECC events. */
static unsigned long long supported(const struct gpu *gpu)
{
    unsigned long long types =
        nvmlEventTypeXidCriticalError | nvmlEventTypePState | nvmlEventTypeClock;
    if (gpu->ecc_mode >= 0)
        types |= nvmlEventTypeSingleBitEccError | nvmlEventTypeDoubleBitEccError;
    return types;
}

EXPORT nvmlReturn_t nvmlDeviceGetSupportedEventTypes(nvmlDevice_t device, unsigned long long *out)
{
    nvmlReturn_t code = begin_gpu(__func__, device);
    if (code == NVML_SUCCESS && !out)
        code = NVML_ERROR_INVALID_ARGUMENT;
    if (code == NVML_SUCCESS)
        *out = supported(gpu_of(device));
    return end(code);
}

EXPORT nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types,
                                             nvmlEventSet_t set)
{
    nvmlReturn_t code = begin_gpu(__func__, device);
    if (code == NVML_SUCCESS && !find(set))
        code = NVML_ERROR_INVALID_ARGUMENT;
    if (code == NVML_SUCCESS && (types & ~supported(gpu_of(device))))
        code = NVML_ERROR_NOT_SUPPORTED;
    if (code == NVML_SUCCESS)
        set->types[device->slot] |= types;
    return end(code);
}

static int wanted(const struct nvmlEventSet *set, const struct event *event)
{
    return event->slot >= 0 && event->slot < MAX_GPUS && device_index(event->slot) >= 0 &&
           (set->types[event->slot] & event->type);
}

/* Takes the oldest undelivered event for this set, in the order of sequence numbers. */
static int take(struct nvmlEventSet *set, nvmlEventData_t *out)
{
    const struct event *oldest = NULL;
    for (int i = 0; i < state.machine.events_count; i++) {
        const struct event *event = &state.machine.events[i];
        if (event->sequence > set->seen && wanted(set, event) &&
            (!oldest || event->sequence < oldest->sequence))
            oldest = event;
    }
    if (!oldest) {
        set->seen = set->seen > last_sequence() ? set->seen : last_sequence();
        return 0;
    }
    set->seen = oldest->sequence;
    *out = (nvmlEventData_t){.device = device_handle(oldest->slot, -1),
                             .eventType = oldest->type,
                             .eventData = oldest->data,
                             .gpuInstanceId = oldest->gi,
                             .computeInstanceId = oldest->ci};
    return 1;
}

static int watches_a_lost_gpu(const struct nvmlEventSet *set)
{
    for (int slot = 0; slot < MAX_GPUS; slot++)
        if (set->types[slot] && slot_is_lost(slot))
            return 1;
    return 0;
}

static long long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000ll + now.tv_nsec / 1000000;
}

static void nap(int notify, long long longest_ms)
{
    char discarded[4096];
    long long most = notify >= 0 ? LONGEST_NAP_MS : LONGEST_BLIND_NAP_MS;
    struct pollfd watch = {.fd = notify, .events = POLLIN};
    if (poll(&watch, 1, (int)(longest_ms < most ? longest_ms : most)) > 0)
        while (read(notify, discarded, sizeof discarded) > 0)
            continue;
}

/* What a waiter gets now, or NVML_ERROR_TIMEOUT while there is nothing to tell. */
static nvmlReturn_t look(struct nvmlEventSet *set, nvmlEventData_t *out)
{
    if (set->generation != state.generation)
        return NVML_ERROR_UNINITIALIZED;
    if (set->freed)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (take(set, out))
        return NVML_SUCCESS;
    return watches_a_lost_gpu(set) ? NVML_ERROR_GPU_IS_LOST : NVML_ERROR_TIMEOUT;
}

EXPORT nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *out,
                                        unsigned int timeout_ms)
{
    const long long deadline = now_ms() + timeout_ms;
    nvmlReturn_t code = begin(__func__);
    if (code == NVML_SUCCESS && (!out || !find(set)))
        code = NVML_ERROR_INVALID_ARGUMENT;
    if (code != NVML_SUCCESS)
        return end(code);
    set->waiters++;
    for (;;) {
        long long left = deadline - now_ms();
        code = look(set, out);
        if (code != NVML_ERROR_TIMEOUT || left <= 0)
            break;
        end(code);
        nap(set->notify, left);
        code = begin(__func__);
        if (code != NVML_SUCCESS)
            break;
    }
    set->waiters--;
    release(set);
    return end(code);
}
