/*
 * The one program of the test images: prints what a container sees, waits, ends.
 *
 *   box                 its environment, sorted, one variable a line; then wait for SIGTERM
 *   box env             the same, without waiting
 *   box cat FILE...     the files' content
 *   box ls DIR          the names in a folder, sorted
 *   box sleep SECONDS   wait, then end with status 0 ("infinity" waits for SIGTERM)
 *   box fail            end with status 1
 *   box pause           wait for SIGTERM, print nothing
 *
 * Installed under the name of a command (env, cat, ls, sleep) it is that command. It is linked statically, so that an
 * image needs nothing else. As the first process of a container it has to handle SIGTERM itself and collect orphans.
 */
#define _POSIX_C_SOURCE 200809L
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static int compare(const void *left, const void *right)
{
	return strcmp(*(char *const *)left, *(char *const *)right);
}

static void end(int number)
{
	(void)number;
	_exit(0);
}

static int complain(const char *what)
{
	fprintf(stderr, "box: %s: %s\n", what, strerror(errno));
	return 1;
}

static int print_environment(void)
{
	size_t count = 0;

	while (environ[count])
		count++;
	qsort(environ, count, sizeof(*environ), compare);
	for (size_t i = 0; i < count; i++)
		puts(environ[i]);
	return fflush(stdout) ? complain("stdout") : 0;
}

static int print_file(const char *path)
{
	char block[4096];
	size_t size;
	FILE *file = fopen(path, "r");

	if (!file)
		return complain(path);
	while ((size = fread(block, 1, sizeof(block), file)) > 0)
		fwrite(block, 1, size, stdout);
	int failed = ferror(file);
	fclose(file);
	return failed ? complain(path) : 0;
}

static int print_folder(const char *path)
{
	char *names[4096];
	size_t count = 0;
	struct dirent *entry;
	DIR *folder = opendir(path);

	if (!folder)
		return complain(path);
	while (count < sizeof(names) / sizeof(*names) && (entry = readdir(folder)))
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			names[count++] = strdup(entry->d_name);
	closedir(folder);
	qsort(names, count, sizeof(*names), compare);
	for (size_t i = 0; i < count; i++)
		puts(names[i]);
	return 0;
}

static _Noreturn void wait_for_end(void)
{
	for (;;)
		pause();
}

static int sleep_for(const char *text)
{
	char *rest;
	double seconds = strtod(text, &rest);

	if (!strcmp(text, "infinity"))
		wait_for_end();
	if (rest == text || *rest || seconds < 0) {
		errno = EINVAL;
		return complain(text);
	}
	struct timespec left = { .tv_sec = (time_t)seconds };
	left.tv_nsec = (long)((seconds - (double)left.tv_sec) * 1e9);
	while (nanosleep(&left, &left) && errno == EINTR)
		;
	return 0;
}

static int run(int count, char **words)
{
	const char *command = words[0];
	int status = 0;

	if (!strcmp(command, "env"))
		return print_environment();
	if (!strcmp(command, "ls"))
		return print_folder(count > 1 ? words[1] : ".");
	if (!strcmp(command, "sleep") && count == 2)
		return sleep_for(words[1]);
	if (!strcmp(command, "fail"))
		return 1;
	if (!strcmp(command, "pause"))
		wait_for_end();
	if (!strcmp(command, "cat") && count > 1) {
		for (int i = 1; i < count; i++)
			status |= print_file(words[i]);
		return status;
	}
	fprintf(stderr, "box: what is \"%s\" with %d arguments?\n", command, count - 1);
	return 2;
}

int main(int count, char **words)
{
	const char *slash = strrchr(words[0], '/');
	const char *name = slash ? slash + 1 : words[0];

	signal(SIGTERM, end);
	signal(SIGINT, end);
	signal(SIGCHLD, SIG_IGN); /* the kernel then collects orphans for us */
	if (strcmp(name, "box")) {
		words[0] = (char *)name;
		return run(count, words);
	}
	if (count > 1)
		return run(count - 1, words + 1);
	if (print_environment())
		return 1;
	wait_for_end();
}
