/* Reads the description files: one `key value` a line, `gpu SLOT` begins or continues a GPU.
 *
 * Python writes both files from JSON (profile.py, machine.py), so the format is only as rich as
 * the machine needs. A value of `none` makes a fact absent.
 */
#include "machine.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct reader {
    struct machine *machine;
    struct gpu *gpu; /* the section that lines belong to, or NULL before the first one */
};

static int copy(char *to, size_t size, const char *from)
{
    if (strlen(from) >= size)
        return -1;
    strcpy(to, strcmp(from, "none") == 0 ? "" : from);
    return 0;
}

static int number(const char *text, int64_t *out)
{
    char *end;
    if (strcmp(text, "none") == 0) {
        *out = -1;
        return 0;
    }
    errno = 0;
    *out = strtoll(text, &end, 0);
    return errno != 0 || end == text || *end != '\0' ? -1 : 0;
}

static int gpu_fact(struct gpu *gpu, const char *key, const char *value)
{
#define NUMBER(name)            \
    if (strcmp(key, #name) == 0) \
        return number(value, &gpu->name);
    GPU_NUMBERS(NUMBER)
#undef NUMBER
#define STRING(name)            \
    if (strcmp(key, #name) == 0) \
        return copy(gpu->name, sizeof gpu->name, value);
    GPU_TEXTS(STRING)
#undef STRING
    return -1;
}

static int presence(struct gpu *gpu, const char *value)
{
    static const char *const words[] = {"present", "lost", "off-bus"};
    for (int i = PRESENT; i <= OFF_BUS; i++)
        if (strcmp(value, words[i]) == 0) {
            gpu->presence = (enum presence)i;
            return 0;
        }
    return -1;
}

static int topology(struct gpu *gpu, const char *value)
{
    int peer, level;
    if (sscanf(value, "%d %d", &peer, &level) != 2 || peer < 0 || peer >= MAX_GPUS)
        return -1;
    gpu->topology[peer] = level;
    return 0;
}

static int nvlink(struct gpu *gpu, const char *value)
{
    int link;
    char kind[16], bdf[32];
    if (sscanf(value, "%d %15s %31s", &link, kind, bdf) != 3 || link < 0 || link >= MAX_LINKS)
        return -1;
    gpu->links[link].number = link;
    gpu->links[link].to_switch = strcmp(kind, "switch") == 0;
    return copy(gpu->links[link].remote_bdf, TEXT, bdf);
}

static int mig(struct gpu *gpu, const char *value)
{
    if (strcmp(value, "none") == 0) {
        gpu->migs_count = 0;
        return 0;
    }
    if (gpu->migs_count == MAX_MIGS)
        return -1;
    struct mig *m = &gpu->migs[gpu->migs_count];
    if (sscanf(value, "%95s %95s %u %u %u %u %u %u %u %u %u %u %llu", m->uuid, m->profile, &m->gi,
               &m->ci, &m->gi_slices, &m->ci_slices, &m->multiprocessors, &m->copy_engines,
               &m->decoders, &m->encoders, &m->jpegs, &m->ofas, &m->memory_mib) != 13)
        return -1;
    gpu->migs_count++;
    return 0;
}

static int process(struct gpu *gpu, const char *value)
{
    if (gpu->processes_count == MAX_PROCESSES)
        return -1;
    struct process *p = &gpu->processes[gpu->processes_count];
    if (sscanf(value, "%15s %u %llu %u %u %95[^\n]", p->kind, &p->pid, &p->memory, &p->gi, &p->ci,
               p->name) != 6)
        return -1;
    gpu->processes_count++;
    return 0;
}

static int event(struct machine *machine, const char *value)
{
    if (machine->events_count == MAX_EVENTS)
        return -1;
    struct event *e = &machine->events[machine->events_count];
    if (sscanf(value, "%llu %d %llu %llu %u %u", &e->sequence, &e->slot, &e->type, &e->data,
               &e->gi, &e->ci) != 6)
        return -1;
    machine->events_count++;
    return 0;
}

static int fault(struct machine *machine, const char *value)
{
    if (machine->faults_count == MAX_FAULTS)
        return -1;
    struct fault *f = &machine->faults[machine->faults_count];
    if (sscanf(value, "%95s %d %u", f->function, &f->slot, &f->code) != 3)
        return -1;
    machine->faults_count++;
    return 0;
}

static int section(struct reader *reader, const char *value)
{
    int64_t slot;
    if (number(value, &slot) != 0 || slot < 0 || slot >= MAX_GPUS)
        return -1;
    reader->gpu = &reader->machine->gpus[slot];
    reader->gpu->known = 1;
    return 0;
}

static int gpu_line(struct gpu *gpu, const char *key, const char *value)
{
    if (strcmp(key, "presence") == 0)
        return presence(gpu, value);
    if (strcmp(key, "topology") == 0)
        return topology(gpu, value);
    if (strcmp(key, "nvlink") == 0)
        return nvlink(gpu, value);
    if (strcmp(key, "mig") == 0)
        return mig(gpu, value);
    if (strcmp(key, "process") == 0)
        return process(gpu, value);
    return gpu_fact(gpu, key, value);
}

static int machine_line(struct machine *machine, const char *key, const char *value)
{
    int64_t cuda;
    if (strcmp(key, "driver") == 0)
        return copy(machine->driver, TEXT, value);
    if (strcmp(key, "nvml") == 0)
        return copy(machine->nvml, TEXT, value);
    if (strcmp(key, "hang") == 0)
        return sscanf(value, "%95s %d", machine->hang, &machine->hang_slot) == 2 ? 0 : -1;
    if (strcmp(key, "init_fault") == 0)
        return number(value, &machine->init_fault);
    if (strcmp(key, "count") == 0)
        return number(value, &machine->count);
    if (strcmp(key, "event") == 0)
        return event(machine, value);
    if (strcmp(key, "fault") == 0)
        return fault(machine, value);
    if (strcmp(key, "cuda") != 0 || number(value, &cuda) != 0)
        return -1;
    machine->cuda = (int)cuda;
    return 0;
}

static int line(struct reader *reader, char *text)
{
    text[strcspn(text, "\n")] = '\0';
    char *key = text + strspn(text, " ");
    if (*key == '\0' || *key == '#')
        return 0;
    char *value = key + strcspn(key, " ");
    if (*value != '\0')
        *value++ = '\0';
    if (strcmp(key, "gpu") == 0)
        return section(reader, value);
    return reader->gpu ? gpu_line(reader->gpu, key, value)
                       : machine_line(reader->machine, key, value);
}

static int read_file(struct machine *machine, const char *path, int optional)
{
    FILE *file = fopen(path, "re");
    if (!file) {
        if (optional && errno == ENOENT)
            return 0;
        fprintf(stderr, "nvml simulation: cannot read %s: %s\n", path, strerror(errno));
        return -1;
    }
    struct reader reader = {.machine = machine, .gpu = NULL};
    char text[1024];
    int count = 0, failed = 0;
    while (!failed && fgets(text, sizeof text, file)) {
        count++;
        failed = line(&reader, text);
    }
    fclose(file);
    if (failed)
        fprintf(stderr, "nvml simulation: %s: line %d is not understood\n", path, count);
    return failed;
}

static void clear(struct machine *machine)
{
    memset(machine, 0, sizeof *machine);
    machine->init_fault = machine->count = -1;
    for (int i = 0; i < MAX_GPUS; i++) {
        struct gpu *gpu = &machine->gpus[i];
#define ABSENT(name) gpu->name = -1;
        GPU_NUMBERS(ABSENT)
#undef ABSENT
        for (int peer = 0; peer < MAX_GPUS; peer++)
            gpu->topology[peer] = -1;
        for (int link = 0; link < MAX_LINKS; link++)
            gpu->links[link].number = -1;
    }
}

int machine_read(struct machine *machine, const char *profile, const char *control)
{
    clear(machine);
    if (read_file(machine, profile, 0) != 0)
        return -1;
    return read_file(machine, control, 1);
}

int parse_bdf(const char *text, unsigned *domain, unsigned *bus, unsigned *device)
{
    unsigned function;
    int used = 0;
    *domain = 0;
    if (sscanf(text, "%x:%x:%x.%x%n", domain, bus, device, &function, &used) == 4 && !text[used])
        return 0;
    *domain = 0;
    used = 0;
    if (sscanf(text, "%x:%x.%x%n", bus, device, &function, &used) == 3 && !text[used])
        return 0;
    return -1;
}
