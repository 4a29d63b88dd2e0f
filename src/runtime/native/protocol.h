/*
 * What agent and shim say to each other: frames of base/frame.h with the magic `ZLSH`, on `shim.sock` (one request a
 * connection at a time, replies in order) and on the start gate. Numbers are the wire format: never reused, additive.
 *
 *   gate:       shim → CREATED(pid, start time) | FAILED(code, text); agent → START; shim → STARTED | FAILED
 *   shim.sock:  EXEC → OUTPUT(stream, data)* EXEC_EXIT(code, signal) | ERROR
 *               EXEC(session) → SESSION, then the same; ATTACH → SESSION, OUTPUT | LOST(count), EXITED(outcome).
 *                  The client meanwhile: INPUT(data), INPUT_END, RESIZE(rows, columns), and nothing else
 *               KILL(signal, all) → OK | ERROR      STATS → STATS      INFO → INFO
 *               WAIT → EXITED(outcome), once everything of the container is gone and `exit` is written
 *               PAUSE, RESUME → OK | ERROR          TOP → PROCESSES(process*) | ERROR
 *   Bytes that are no frame, or a frame that has no place: ERROR, then the shim closes the connection.
 *
 * Thread: any. Owns: nothing. Fails: as the calls of frame.h.
 */
#pragma once

#include "base/frame.h"

enum { ZL_SH_MAGIC = 0x48534c5a, ZL_SH_VERSION = 1, ZL_SH_REQUEST_MAX = 1 << 20, ZL_SH_REPLY_MAX = 1 << 20 };
/* Of one command: arguments, variables beside the container's own, bytes of one INPUT, processes that TOP tells. */
enum { ZL_SH_ARGS_MAX = 4096, ZL_SH_ENV_MAX = 4096, ZL_SH_INPUT_MAX = 32 * 1024, ZL_SH_PROCESSES_MAX = 256 };

enum zl_sh_type {
    ZL_SH_EXEC = 1,
    ZL_SH_KILL = 2,
    ZL_SH_STATS = 3,
    ZL_SH_INFO = 4,
    ZL_SH_WAIT = 5,
    ZL_SH_ATTACH = 6,
    ZL_SH_INPUT = 7,
    ZL_SH_INPUT_END = 8,
    ZL_SH_RESIZE = 9,
    ZL_SH_PAUSE = 10,
    ZL_SH_RESUME = 11,
    ZL_SH_TOP = 12,
    ZL_SH_CREATED = 20,
    ZL_SH_START = 21,
    ZL_SH_STARTED = 22,
    ZL_SH_FAILED = 23,
    ZL_SH_OK = 30,
    ZL_SH_ERROR = 31,
    ZL_SH_OUTPUT = 32,
    ZL_SH_EXITED = 33,
    ZL_SH_EXEC_EXIT = 36,
    ZL_SH_SESSION = 40, /* the program runs, or the streams are attached */
    ZL_SH_LOST = 41,    /* so many bytes of the stream were not sent, as the client did not keep up */
    ZL_SH_PROCESSES = 42,
};

enum zl_sh_record {
    ZL_SH_R_ARG = 1,
    ZL_SH_R_ENV = 2,
    ZL_SH_R_CWD = 3,
    ZL_SH_R_USER = 4,
    ZL_SH_R_SESSION = 5, /* these are numbers: 0 or 1 */
    ZL_SH_R_TTY = 6,
    ZL_SH_R_STDIN = 7,
    ZL_SH_R_PRIVILEGED = 8, /* every capability that the shim has */
    ZL_SH_R_PAUSED = 9,
    ZL_SH_R_SIGNAL = 10, /* numbers are u64, negative ones in two's complement */
    ZL_SH_R_ALL = 11,
    ZL_SH_R_CODE = 12,
    ZL_SH_R_TEXT = 13,
    ZL_SH_R_PID = 14,
    ZL_SH_R_START_TIME = 15,
    ZL_SH_R_PHASE = 16,  /* "created", "running", "ending" */
    ZL_SH_R_STREAM = 17, /* 1 or 2 */
    ZL_SH_R_DATA = 18,
    ZL_SH_R_REASON = 19, /* "exited", "signal", "oom_killed", "runtime_error" */
    ZL_SH_R_OOM_KILLS = 20,
    ZL_SH_R_FINISHED_MS = 21,
    ZL_SH_R_CPU_USEC = 22,
    ZL_SH_R_MEMORY = 23,
    ZL_SH_R_MEMORY_LIMIT = 24,
    ZL_SH_R_PIDS = 25,
    ZL_SH_R_SHIM_PID = 26,
    ZL_SH_R_ROWS = 27,
    ZL_SH_R_COLUMNS = 28,
    ZL_SH_R_COUNT = 29,
    ZL_SH_R_CPU_TOTAL_NS = 30,
    ZL_SH_R_CPU_SYSTEM_NS = 31,
    ZL_SH_R_CPUS = 32, /* online */
    ZL_SH_R_NET_RX = 33,
    ZL_SH_R_NET_TX = 34,
    ZL_SH_R_BLOCK_READ = 35,
    ZL_SH_R_BLOCK_WRITE = 36,
    ZL_SH_R_PIDS_LIMIT = 37, /* left out: none */
    ZL_SH_R_TAKEN_MS = 38,   /* the wall clock's */
    ZL_SH_R_PROCESS = 39,    /* records of its own: PID, PPID, UID, STARTED_MS, CPU_TOTAL_NS, MEMORY, TEXT (command) */
    ZL_SH_R_PPID = 40,
    ZL_SH_R_UID = 41,
    ZL_SH_R_STARTED_MS = 42,
};

/* The descriptors that a shim is started with. */
enum { ZL_SH_FD_LOCK = 3, ZL_SH_FD_DIR = 4, ZL_SH_FD_LISTEN = 5, ZL_SH_FD_GATE = 6 };
