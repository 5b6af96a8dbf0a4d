/* Files, texts and standard input. */
#include "gpudev.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOST_INPUT (1u << 20)

int failed(const char *format, ...) {
	va_list arguments;
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	return 1;
}

static void *grown(void *memory, size_t size) {
	void *more = realloc(memory, size);
	if (more == NULL) {
		fputs("out of memory\n", stderr);
		exit(1);
	}
	return more;
}

void text_add(struct text *text, const char *format, ...) {
	for (;;) {
		va_list arguments;
		va_start(arguments, format);
		size_t room = text->room - text->length;
		int wanted = vsnprintf(text->bytes ? text->bytes + text->length : NULL, room, format, arguments);
		va_end(arguments);
		if (wanted < 0) return;
		if ((size_t)wanted < room) {
			text->length += (size_t)wanted;
			return;
		}
		text->room = text->room * 2 + (size_t)wanted + 1;
		text->bytes = grown(text->bytes, text->room);
	}
}

/* The length of the UTF-8 sequence at `at` (RFC 3629), 0 when it is none. */
static int sequence_at(const unsigned char *at) {
	int more = *at >= 0xF0 && *at < 0xF5 ? 3 : *at >= 0xE0 ? 2 : *at >= 0xC2 && *at < 0xE0 ? 1 : 0;
	if (more == 0 || *at >= 0xF5) return 0;
	for (int i = 1; i <= more; i++) {
		if ((at[i] & 0xC0) != 0x80) return 0;
	}
	bool overlong = (*at == 0xE0 && at[1] < 0xA0) || (*at == 0xF0 && at[1] < 0x90);
	bool outside = (*at == 0xED && at[1] > 0x9F) || (*at == 0xF4 && at[1] > 0x8F);
	return overlong || outside ? 0 : more + 1;
}

/* File names are bytes: what is no UTF-8 becomes U+FFFD, so that the document is JSON whatever they are. */
void text_add_json(struct text *text, const char *string) {
	text_add(text, "\"");
	for (const unsigned char *at = (const unsigned char *)string; *at != '\0';) {
		int length = *at < 0x80 ? 1 : sequence_at(at);
		if (length == 0) {
			text_add(text, "\\ufffd");
		} else if (*at == '"' || *at == '\\') {
			text_add(text, "\\%c", *at);
		} else if (*at < 0x20 || *at == 0x7F) {
			text_add(text, "\\u%04x", (unsigned)*at);
		} else {
			text_add(text, "%.*s", length, (const char *)at);
		}
		at += length ? length : 1;
	}
	text_add(text, "\"");
}

static ssize_t read_some(int in, char *bytes, size_t length) {
	ssize_t got;
	do {
		got = read(in, bytes, length);
	} while (got < 0 && errno == EINTR);
	return got;
}

char *read_frame(size_t *length) {
	char number[16];
	size_t digits = 0;
	/* byte by byte: what is behind the line belongs to the frame */
	for (;;) {
		if (digits == sizeof number - 1 || read_some(0, number + digits, 1) != 1) return NULL;
		if (number[digits] == '\n') break;
		if (number[digits] < '0' || number[digits] > '9') return NULL;
		digits++;
	}
	number[digits] = '\0';
	unsigned long wanted = strtoul(number, NULL, 10);
	if (digits == 0 || wanted > MOST_INPUT) return NULL;
	char *frame = grown(NULL, wanted + 1);
	for (size_t got = 0; got < wanted;) {
		ssize_t more = read_some(0, frame + got, wanted - got);
		if (more <= 0) {
			free(frame);
			return NULL;
		}
		got += (size_t)more;
	}
	frame[wanted] = '\0';
	*length = wanted;
	return frame;
}

int write_all(int out, const char *bytes, size_t length) {
	while (length > 0) {
		ssize_t done = write(out, bytes, length);
		if (done < 0 && errno == EINTR) continue;
		if (done < 0) return -1;
		bytes += done;
		length -= (size_t)done;
	}
	return 0;
}

int write_file(const char *path, const char *bytes, size_t length) {
	char beside[4096];
	snprintf(beside, sizeof beside, "%s.%d", path, (int)getpid());
	int out = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (out < 0) return -1;
	bool written = write_all(out, bytes, length) == 0 && fsync(out) == 0;
	if (close(out) == 0 && written && rename(beside, path) == 0) return 0;
	int reason = errno;
	unlink(beside);
	errno = reason;
	return -1;
}

char *read_file(const char *path, size_t *length) {
	int in = open(path, O_RDONLY | O_CLOEXEC);
	if (in < 0) return NULL;
	struct text text = {0};
	char bytes[4096];
	ssize_t got;
	text_add(&text, "%s", "");
	while ((got = read_some(in, bytes, sizeof bytes)) > 0) {
		if (text.room < text.length + (size_t)got + 1) {
			text.room = text.room * 2 + (size_t)got + 1;
			text.bytes = grown(text.bytes, text.room);
		}
		memcpy(text.bytes + text.length, bytes, (size_t)got);
		text.length += (size_t)got;
		text.bytes[text.length] = '\0';
	}
	int reason = errno;
	close(in);
	if (got < 0) {
		free(text.bytes);
		errno = reason;
		return NULL;
	}
	if (length != NULL) *length = text.length;
	return text.bytes;
}
