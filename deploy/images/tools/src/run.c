/* The first process of the job's container: SSH, the command with its output in two places, reaping, signals. */
#include "gpudev.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LOG_BYTES (16l << 20)
#define OUTPUT_BYTES (1 << 16)
#define SSHD_PAUSE_MS 1000
#define SSHD_PROBE_MS 20
#define DRAIN_MS 200
#define UNSEEN_MS 300 /* the runtime hands on what has no end only when there is much of it */
/* Marks of the log, which services/jobs/domain/log_marks.py takes out: a record that ends before its line does, and a line
   that ends with a mark of its own. */
#define CUT '\x1f'
#define WHOLE '\x1e'

struct state {
	pid_t command, sshd;
	int status; /* of the command, once it has ended */
	bool has_ended, stopping;
	int output; /* of the command, both its streams in the order of writing; -1 at its end */
	int log;
	long logged;
	char last;     /* of the bytes that were told */
	long since;    /* when the first byte came of a record that has no end yet; 0: there is none */
	long sshd_due; /* when it may be started again */
};

static long milliseconds(void) {
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000l + now.tv_nsec / 1000000l;
}

/* Before anything else runs here: keys, tokens and programs lie where nobody but the container's user can write. */
static int make_folders(void) {
	static const struct {
		const char *path;
		mode_t mode;
	} folders[] = {{ETC, 0700}, {RUN, 0755}, {BUNDLE, 0755}};
	for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
		const char *path = folders[i].path;
		struct stat status;
		if (mkdir(path, folders[i].mode) != 0 && errno != EEXIST) return failed("%s: %m", path);
		if (lstat(path, &status) != 0) return failed("%s: %m", path);
		bool ours = S_ISDIR(status.st_mode) && status.st_uid == geteuid() && (status.st_mode & 022) == 0;
		if (!ours) return failed("%s is not a folder of the container's user alone", path);
	}
	return 0;
}

static void make_host_key(void) {
	char made[] = HOST_KEY ".new";
	if (access(HOST_KEY, F_OK) == 0) return;
	unlink(made);
	char *const argv[] = {BIN "/dropbearkey", "-t", "ed25519", "-f", made, NULL};
	pid_t child = start_program(argv, RUN "/dropbearkey.log");
	int status;
	while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
	if (rename(made, HOST_KEY) != 0) failed("No host key could be made: %m");
}

/* Once: a restarted container keeps the keys that were put in its place since. */
static void take_first_keys(void) {
	size_t length;
	if (access(KEYS, F_OK) == 0) return;
	char *keys = read_file(FIRST_KEYS, &length);
	if (keys == NULL || write_file(KEYS, keys, length) != 0) failed("No first keys: %m");
	free(keys);
}

static pid_t start_sshd(void) {
	/* -e: sessions have the container's environment; the password options are compiled out */
	char *const argv[] = {BIN "/dropbear", "-F", "-e", "-p", "2222", "-r", HOST_KEY,
	                      "-P", RUN "/sshd.pid", "-W", "1048576", "-K", "60", NULL};
	return start_program(argv, RUN "/sshd.log");
}

/* The tools' own shell where the image has none. */
static void exec_command(char *const argv[]) {
	execvp(argv[0], argv);
	if (errno == ENOENT && strcmp(argv[0], "/bin/sh") == 0) execv(BIN "/sh", argv);
	dprintf(2, "%s: %s\n", argv[0], strerror(errno));
	_exit(errno == ENOENT ? 127 : 126);
}

/* What is missing of a directory is made, by its user and not by root as the container's runtime would. */
static int make_directory(const char *path) {
	char part[4096];
	if (strlen(path) >= sizeof part) return errno = ENAMETOOLONG, -1;
	for (const char *end = path; *end != '\0';) {
		end += strspn(end, "/");
		end += strcspn(end, "/");
		snprintf(part, sizeof part, "%.*s", (int)(end - path), path);
		if (mkdir(part, 0777) != 0 && errno != EEXIST && access(part, F_OK) != 0) return -1;
	}
	return 0;
}

/* Where it was asked for, else where the image says, which is at home when it says nothing. */
static void enter_directory(const char *wanted) {
	char here[2];
	if (wanted == NULL && getcwd(here, sizeof here) == NULL) return; /* longer than "/" */
	if (wanted == NULL) wanted = HOME;
	if (chdir(wanted) == 0 || (errno == ENOENT && make_directory(wanted) == 0 && chdir(wanted) == 0)) return;
	dprintf(2, "The command cannot start in %s: %s\n", wanted, strerror(errno));
	_exit(126);
}

/* A HOME of the user's is the command's alone: sessions are at home where their files are. */
static void take_home(void) {
	char *home = read_file(COMMANDS_HOME, NULL);
	if (home != NULL) setenv("HOME", home, 1);
	free(home);
}

static void start_command(struct state *state, const struct run *wanted) {
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) != 0) exit(failed("pipe: %m"));
	state->log = open(COMMAND_LOG, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	state->command = fork();
	if (state->command < 0) exit(failed("fork: %m"));
	if (state->command == 0) {
		sigset_t none;
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		setsid();
		int in = open("/dev/null", O_RDONLY);
		dup2(in, 0);
		dup2(ends[1], 1);
		dup2(ends[1], 2);
		enter_directory(wanted->directory);
		take_home();
		exec_command(wanted->argv);
	}
	close(ends[1]);
	fcntl(ends[0], F_SETFL, O_NONBLOCK);
	state->output = ends[0];
}

/* Keep the end of the log file, in place of all that a week of printing makes. */
static void shorten_log(struct state *state) {
	static char bytes[1 << 16];
	int shorter = open(COMMAND_LOG ".new", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (shorter < 0) return;
	off_t at = state->logged - LOG_BYTES;
	ssize_t got;
	while ((got = pread(state->log, bytes, sizeof bytes, at)) > 0 && write_all(shorter, bytes, (size_t)got) == 0) {
		at += got;
	}
	if (rename(COMMAND_LOG ".new", COMMAND_LOG) != 0) {
		close(shorter);
		return;
	}
	close(state->log);
	state->log = shorter;
	state->logged = LOG_BYTES;
}

static bool is_mark(char byte) {
	return byte == CUT || byte == WHOLE;
}

/* To the pod's log. */
static void tell(struct state *state, const char *bytes, size_t length) {
	static char told[2 * OUTPUT_BYTES];
	size_t used = 0;
	long now = milliseconds();
	for (const char *at = bytes; at < bytes + length; at++) {
		bool ends = *at == '\n';
		if (ends && is_mark(state->last)) told[used++] = WHOLE;
		told[used++] = state->last = *at;
		state->since = ends ? 0 : state->since ? state->since : now;
	}
	(void)!write_all(1, told, used);
}

static void end_record(struct state *state) {
	static const char end[] = {CUT, '\n'};
	(void)!write_all(1, end, sizeof end);
	state->last = '\n';
	state->since = 0;
}

/* Whether there may be more. */
static bool pass_on(struct state *state) {
	static char bytes[OUTPUT_BYTES];
	ssize_t got = read(state->output, bytes, sizeof bytes);
	if (got < 0) return errno == EINTR || errno == EAGAIN;
	if (got == 0) return false;
	if (state->log >= 0 && write_all(state->log, bytes, (size_t)got) == 0) {
		state->logged += got;
		if (state->logged > 2 * LOG_BYTES) shorten_log(state);
	}
	tell(state, bytes, (size_t)got);
	return true;
}

/* What the command has printed is in the pipe when it has ended; what it left in the background may print for ever. */
static void drain(struct state *state) {
	struct pollfd more = {.fd = state->output, .events = POLLIN};
	while (more.fd >= 0 && poll(&more, 1, 0) == 1 && (more.revents & POLLIN) && pass_on(state)) {}
	if (is_mark(state->last)) end_record(state); /* it was printed, whatever the runtime makes of a last line without an end */
}

static void reap(struct state *state) {
	int status;
	pid_t child;
	while ((child = waitpid(-1, &status, WNOHANG)) > 0) {
		if (child == state->command) {
			state->has_ended = true;
			state->status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
		} else if (child == state->sshd) {
			state->sshd = 0;
			state->sshd_due = milliseconds() + SSHD_PAUSE_MS;
		}
	}
}

/* To all of the command: a shell does not pass signals on to what it waits for. */
static void receive_signal(struct state *state, int signals) {
	struct signalfd_siginfo info;
	while (read(signals, &info, sizeof info) == (ssize_t)sizeof info) {
		int number = (int)info.ssi_signo;
		if (number == SIGCHLD) continue;
		if (number == SIGTERM || number == SIGINT) state->stopping = true;
		if (state->command > 0) kill(-state->command, number);
	}
}

static bool is_over(const struct state *state) {
	if (state->command == 0) return state->stopping;
	/* asked to stop, what the shell had started may clean up within the grace that the pod has */
	return state->has_ended && !(state->stopping && kill(-state->command, 0) == 0);
}

/* The job's time counts from sshd's first answer: the command has no more of it than is counted, and waits no longer than
   the job's time does. */
static void await_sshd(struct state *state, int signals, int seconds) {
	for (long end = milliseconds() + seconds * 1000l; !state->stopping && milliseconds() < end && !sshd_answers(1);) {
		struct pollfd watched = {.fd = signals, .events = POLLIN};
		int ready = poll(&watched, 1, state->sshd == 0 ? SSHD_PAUSE_MS : SSHD_PROBE_MS);
		if (ready == 0 && state->sshd == 0) state->sshd = start_sshd();
		if (watched.revents & POLLIN) receive_signal(state, signals);
		reap(state);
	}
}

/* How long there is nothing to do if nothing happens; -1: for ever. */
static int pause_of(const struct state *state) {
	long due = -1, now = milliseconds();
	if (state->sshd == 0) due = state->sshd_due;
	if (state->since != 0 && (due < 0 || state->since + UNSEEN_MS < due)) due = state->since + UNSEEN_MS;
	if (state->has_ended && (due < 0 || now + DRAIN_MS < due)) due = now + DRAIN_MS;
	return due < 0 ? -1 : due > now ? (int)(due - now) : 0;
}

static void live(struct state *state, int signals) {
	while (!is_over(state)) {
		struct pollfd watched[2] = {{.fd = signals, .events = POLLIN}, {.fd = state->output, .events = POLLIN}};
		if (poll(watched, 2, pause_of(state)) < 0) continue;
		if (state->sshd == 0 && milliseconds() >= state->sshd_due) state->sshd = start_sshd();
		if (state->since != 0 && milliseconds() >= state->since + UNSEEN_MS) end_record(state);
		if (watched[0].revents & POLLIN) receive_signal(state, signals);
		if (watched[1].revents && !pass_on(state)) state->output = -1;
		reap(state);
	}
	drain(state);
}

/* The listing of the disk goes with the end of the container: nobody can look at the disk then. */
static void leave_listing(const char *directory) {
	char *text = listing_of(directory, 4096);
	int out = open(TERMINATION_LOG, O_WRONLY | O_TRUNC | O_CLOEXEC);
	if (text != NULL && out >= 0) (void)!write_all(out, text, strlen(text));
	if (out >= 0) close(out);
	free(text);
}

static int watch_signals(void) {
	static const int passed[] = {SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};
	sigset_t set;
	sigemptyset(&set);
	for (size_t i = 0; i < sizeof passed / sizeof *passed; i++) sigaddset(&set, passed[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

int run_call(const struct run *wanted) {
	struct state state = {.log = -1, .output = -1};
	umask(022);
	int signals = watch_signals();
	if (signals < 0) return failed("signalfd: %m");
	if (make_folders() != 0) return 1;
	make_host_key();
	take_first_keys();
	state.sshd = start_sshd();
	jupyter_resume();
	if (wanted->argv != NULL) await_sshd(&state, signals, wanted->patience_seconds);
	if (wanted->argv != NULL && !state.stopping) start_command(&state, wanted);
	live(&state, signals);
	if (state.sshd > 0) kill(state.sshd, SIGTERM);
	if (wanted->listed != NULL) leave_listing(wanted->listed);
	if (state.command > 0) return state.status;
	return wanted->argv == NULL ? 0 : 128 + SIGTERM; /* a command that was ended before it began */
}
