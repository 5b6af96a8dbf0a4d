/* JupyterLab on and off. Its token is in a file of mode 0600: never an argument, in no environment and no log. */
#include "gpudev.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SETTINGS ETC "/jupyter_server_config.json"
#define TOKEN ETC "/jupyter.token"
#define PROCESS RUN "/jupyter.pid"
#define WISH RUN "/jupyter.wish"
#define LOG RUN "/jupyter.log"
#define ARCHIVE TOOLS "/jupyter.tar.gz"
#define OWN_PYTHON BUNDLE "/bin/python3"
#define START_SECONDS 60
#define STOP_SECONDS 5
#define TICK_MS 100

static void sleep_a_tick(void) {
	struct timespec tick = {.tv_nsec = TICK_MS * 1000000l};
	nanosleep(&tick, NULL);
}

static double now(void) {
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* When a process began, in ticks after boot (field 22 of proc(5)'s stat): pids are used again. 0: it is gone. */
static unsigned long long began_at(pid_t pid) {
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	char *status = read_file(path, NULL);
	char *field = status ? strrchr(status, ')') : NULL;
	unsigned long long began = 0;
	if (field != NULL && field[1] == ' ' && field[2] != 'Z') {
		for (int number = 2; field != NULL && number < 22; number++) field = strchr(field + 1, ' ');
		if (field != NULL) began = strtoull(field, NULL, 10);
	}
	free(status);
	return began;
}

/* The process that serves, 0 when none does. */
static pid_t running(void) {
	int pid = 0;
	unsigned long long began = 0;
	char *text = read_file(PROCESS, NULL);
	if (text != NULL && (sscanf(text, "%d %llu", &pid, &began) != 2 || began == 0 || began_at(pid) != began)) pid = 0;
	free(text);
	return pid;
}

static void stop(void) {
	pid_t pid = running();
	double end = now() + STOP_SECONDS;
	if (pid > 0) kill(-pid, SIGTERM);
	while (pid > 0 && running() == pid) {
		if (now() > end) kill(-pid, SIGKILL);
		waitpid(pid, NULL, WNOHANG);
		sleep_a_tick();
	}
	unlink(PROCESS);
}

/* What a call wants: of {"token": "...", "wish": 7} or, for off, {"wish": 8}; `wish` may be missing. */
struct wish {
	char token[129]; /* letters that need no quoting in JSON, a URL or a file; empty for off */
	unsigned long long number; /* rises with each wish of the job's owner; 0: not said */
};

static bool read_wish(const char *frame, struct wish *wish) {
	char closing[2] = "";
	int used = 0;
	*wish = (struct wish){0};
	bool on = sscanf(frame, " { \"token\" : \"%128[A-Za-z0-9_-]\"%n", wish->token, &used) == 1 && used > 0;
	if (on && strlen(wish->token) < 16) return false;
	frame += used;
	used = 0;
	if (sscanf(frame, on ? " , \"wish\" : %llu %1[}] %n" : " { \"wish\" : %llu %1[}] %n", &wish->number, closing, &used) == 2)
		return frame[used] == '\0';
	wish->number = 0;
	return on && sscanf(frame, " %1[}] %n", closing, &used) == 1 && frame[used] == '\0';
}

/* Whether a python of the image can run notebooks; it becomes the default kernel then. */
static bool write_image_kernel(void) {
	char python[4096], check[] = "import ipykernel";
	if (!find_program("python3", python, sizeof python) && !find_program("python", python, sizeof python)) return false;
	char *const argv[] = {python, "-c", check, NULL};
	pid_t child = start_program(argv, RUN "/ipykernel.log");
	int status = -1;
	while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
	if (status != 0) return false;
	struct text kernel = {0};
	text_add(&kernel, "{\"argv\": [");
	text_add_json(&kernel, python);
	text_add(&kernel, ", \"-m\", \"ipykernel_launcher\", \"-f\", \"{connection_file}\"], "
	                  "\"display_name\": \"Python 3 (image)\", \"language\": \"python\"}");
	bool written = write_file(BUNDLE "/share/jupyter/kernels/image/kernel.json", kernel.bytes, kernel.length) == 0;
	free(kernel.bytes);
	return written;
}

/* The user's own settings, on the disk or in the image, hold for what is not said here: where the server is, whom it
 * lets in, how long it lives. As arguments, since theirs are applied before a file of ours is read, and may be invalid. */
#define SAID \
	"--ServerApp.ip=0.0.0.0", "--ServerApp.port=8888", "--ServerApp.port_retries=0", "--ServerApp.sock=", \
	"--ServerApp.base_url=/", "--ServerApp.default_url=/lab", "--LabApp.default_url=/lab", "--LabApp.dev_mode=False", \
	"--ServerApp.root_dir=" HOME, "--ServerApp.preferred_dir=" HOME, "--ServerApp.open_browser=False", \
	"--ServerApp.certfile=", "--ServerApp.keyfile=", "--ServerApp.client_ca=", \
	"--ServerApp.password=", "--ServerApp.password_required=False", "--ServerApp.allow_password_change=False", \
	"--PasswordIdentityProvider.hashed_password=", "--PasswordIdentityProvider.password_required=False", \
	"--PasswordIdentityProvider.allow_password_change=False", \
	"--ServerApp.identity_provider_class=jupyter_server.auth.identity.PasswordIdentityProvider", \
	"--ServerApp.authorizer_class=jupyter_server.auth.authorizer.AllowAllAuthorizer", \
	"--ServerApp.allow_root=True", "--ServerApp.allow_remote_access=True", "--ServerApp.shutdown_no_activity_timeout=0"

static int write_settings(const char *token, bool has_image_kernel) {
	struct text text = {0};
	text_add(&text,
	         "{\"ServerApp\": {\"token\": \"%s\", \"terminado_settings\": {\"shell_command\": [\"%s\"]}}, "
	         "\"IdentityProvider\": {\"token\": \"%s\"}, \"PasswordIdentityProvider\": {\"token\": \"%s\"}%s}\n",
	         token, shell_of_dev(), token, token,
	         has_image_kernel ? ", \"MultiKernelManager\": {\"default_kernel_name\": \"image\"}" : "");
	int result = write_file(SETTINGS, text.bytes, text.length);
	free(text.bytes);
	return result;
}

/* What is brought along, unpacked when it is first wanted: most jobs never want it. */
static int unpack(void) {
	if (access(OWN_PYTHON, X_OK) == 0) return 0;
	char *const argv[] = {BIN "/busybox", "tar", "-xzf", ARCHIVE, "-C", BUNDLE, NULL};
	pid_t child = start_program(argv, RUN "/unpack.log");
	int status = -1;
	while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
	return status == 0 ? 0 : -1;
}

static int start(const char *token) {
	char program[4096];
	bool own = !find_program("jupyter-lab", program, sizeof program);
	if (own && unpack() != 0) return failed("JupyterLab could not be unpacked: is the node's disk full?");
	if (write_settings(token, own && write_image_kernel()) != 0) return failed("%s: %m", SETTINGS);
	/* -I: the variables of the image's own python would lead this one astray */
	char *const image[] = {program, "--config", SETTINGS, SAID, NULL};
	char *const brought[] = {OWN_PYTHON, "-I", "-m", "jupyterlab", "--config", SETTINGS, SAID, NULL};
	setenv("HOME", HOME, 1);
	setenv("JUPYTER_RUNTIME_DIR", RUN "/jupyter", 1);
	pid_t child = start_program(own ? brought : image, LOG);
	if (child < 0) return failed("fork: %m");
	char line[64];
	int length = snprintf(line, sizeof line, "%d %llu\n", (int)child, began_at(child));
	if (write_file(PROCESS, line, (size_t)length) != 0) return failed("%s: %m", PROCESS);
	return 0;
}

static bool answers(void) {
	static const char question[] = "GET /api HTTP/1.0\r\n\r\n", wanted[] = " 200 ";
	char answer[64] = "";
	int connection = connect_to(JUPYTER_PORT, 2);
	if (connection < 0) return false;
	bool asked = send(connection, question, sizeof question - 1, MSG_NOSIGNAL) > 0;
	ssize_t got = asked ? recv(connection, answer, sizeof answer - 1, 0) : 0;
	close(connection);
	return got > 0 && strstr(answer, wanted) != NULL;
}

/* Its own last words, without the token, which it prints in its greeting. */
static int explain(const char *token) {
	char *log = read_file(LOG, NULL);
	char *words = log ? log + strlen(log) : NULL;
	while (words != NULL && words > log && words[-1] == '\n') *--words = '\0';
	char *line = log ? strrchr(log, '\n') : NULL;
	line = line ? line + 1 : log;
	bool tells = line != NULL && *line != '\0' && strstr(line, token) == NULL;
	int result = failed("JupyterLab did not start%s%s", tells ? ": " : "", tells ? line : "");
	free(log);
	return result;
}

/* The last wish, as `number token`. */
static struct wish last_wish(void) {
	struct wish last = {0};
	char *text = read_file(WISH, NULL);
	if (text != NULL) sscanf(text, "%llu %128[A-Za-z0-9_-]", &last.number, last.token);
	free(text);
	return last;
}

static bool wished(const char *token) {
	struct wish last = last_wish();
	return strcmp(last.token, token) == 0;
}

/* Closed with the process. */
static int lock_file(const char *path) {
	int lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	while (lock >= 0 && flock(lock, LOCK_EX) != 0 && errno == EINTR) {}
	return lock;
}

/* Said before its turn, so that a start makes way. False: a later wish was here, calls may arrive late. */
static bool say(const struct wish *wish) {
	int lock = lock_file(WISH ".lock");
	struct wish last = last_wish();
	bool newest = wish->number == 0 || wish->number >= last.number;
	char line[160];
	unsigned long long number = wish->number > last.number ? wish->number : last.number;
	int length = snprintf(line, sizeof line, "%llu %s", number, wish->token);
	if (newest) write_file(WISH, line, (size_t)length);
	if (lock >= 0) close(lock);
	return newest;
}

static int make_way(void) { return failed("Another request came while JupyterLab started"); }

static int await(const char *token, double end) {
	for (; now() < end; sleep_a_tick()) {
		if (!wished(token)) {
			stop();
			return make_way();
		}
		if (answers()) return 0;
		waitpid(-1, NULL, WNOHANG);
		if (running() == 0) break;
	}
	int result = explain(token);
	stop();
	return result;
}

/* One call at a time. */
static void take_turn(void) { lock_file(RUN "/jupyter.lock"); }

int jupyter_start_call(void) {
	struct wish wish;
	size_t length;
	double end = now() + START_SECONDS;
	char *frame = read_frame(&length);
	if (frame == NULL || !read_wish(frame, &wish) || wish.token[0] == '\0')
		return failed("Standard input holds no {\"token\": \"...\"}");
	free(frame);
	if (!say(&wish)) return make_way();
	take_turn();
	if (!wished(wish.token)) return make_way();
	char *known = read_file(TOKEN, NULL);
	bool same = known != NULL && strcmp(known, wish.token) == 0;
	free(known);
	if (!same || running() == 0) {
		stop();
		if (start(wish.token) != 0) return 1;
	}
	if (await(wish.token, end) != 0) return 1;
	return write_file(TOKEN, wish.token, strlen(wish.token)) == 0 ? 0 : failed("%s: %m", TOKEN);
}

int jupyter_stop_call(void) {
	struct wish wish = {0};
	size_t length;
	char *frame = read_frame(&length);
	if (frame != NULL && !read_wish(frame, &wish)) return failed("Standard input holds no {\"wish\": ...}");
	free(frame);
	wish.token[0] = '\0';
	if (!say(&wish)) return make_way();
	take_turn();
	if (!wished("")) return make_way();
	stop();
	unlink(TOKEN);
	unlink(SETTINGS);
	return 0;
}

/* In a process of its own: the command need not wait for it. */
void jupyter_resume(void) {
	unlink(PROCESS); /* of the container's last life */
	char *token = read_file(TOKEN, NULL);
	if (token != NULL && fork() == 0) _exit(start(token));
	free(token);
}
