/* The program of the tools image; ../README.md is its contract. Linux only; needs no libc, shell or file of the image. */
#ifndef GPUDEV_H
#define GPUDEV_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define TOOLS "/gpudev"
#define BIN TOOLS "/bin"
#define ETC TOOLS "/etc"
#define RUN TOOLS "/run"
#define BUNDLE TOOLS "/jupyter"
#define HOME "/home/dev"
#define FIRST_KEYS TOOLS "/access/authorized_keys"
#define COMMANDS_HOME TOOLS "/access/home"
#define KEYS ETC "/authorized_keys"
#define HOST_KEY ETC "/host_key"
#define COMMAND_LOG RUN "/command.log"
#define TERMINATION_LOG "/dev/termination-log"
#define SSH_PORT 2222
#define JUPYTER_PORT 8888

/* What `gpudev run` is asked for. */
struct run {
	const char *directory; /* where the command starts; NULL: where the image says */
	const char *listed;    /* whose listing is left at the end; NULL: none */
	int patience_seconds;  /* how long the command waits for sshd's first answer at most */
	char *const *argv;     /* NULL: idle */
};

/* The calls; each returns the exit code. */
int install_call(const char *from, const char *into);
int run_call(const struct run *wanted);
int ready_call(void);
bool sshd_answers(int seconds);
int keys_call(void);
int host_keys_call(void);
int jupyter_start_call(void);
int jupyter_stop_call(void);
int listing_call(const char *directory);

/* Jupyter again after a restart of the container, if it was on. */
void jupyter_resume(void);

/* The tree of a directory as JSON, at most `most` bytes of it (0: no bound); NULL and errno when it cannot be read.
 * The caller frees it. */
char *listing_of(const char *directory, size_t most);

/* The image's bash or sh, else the tools' own. */
const char *shell_of_dev(void);

/* Texts that grow. */
struct text {
	char *bytes;
	size_t length, room;
};
void text_add(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_add_json(struct text *text, const char *string);

/* Standard input: a line with a number, then as many bytes. NULL when it is no such thing; the caller frees it. */
char *read_frame(size_t *length);

/* Replace a file at once, mode 0600; 0 or -1 and errno. */
int write_file(const char *path, const char *bytes, size_t length);
/* A whole file with a NUL behind it, NULL and errno when it cannot be read; the caller frees it. */
char *read_file(const char *path, size_t *length);
int write_all(int out, const char *bytes, size_t length);

/* A new process that leads a session of its own; output goes to the file, or where ours goes when it is NULL. */
pid_t start_program(char *const argv[], const char *output);
/* The first program of this name on the path, into `found`; whether there is one. */
bool find_program(const char *name, char found[], size_t size);
/* A connection to a port of this host, -1 when nobody listens; reads and writes on it end after so many seconds. */
int connect_to(int port, int seconds);

/* Print what went wrong, as the last line on standard error; 1, the exit code. */
int failed(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
