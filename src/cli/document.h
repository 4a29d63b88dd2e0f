/*
 * The deployment document that a command works on: found, read and decoded, with its problems shown as they stand in
 * the file. Thread: one. Owns: the cli's arena owns text and spec. Fails: ZL_E_SPEC after the problems were written to
 * stderr; ZL_E_NOT_FOUND and errno for a file that can't be read.
 */
#pragma once

#include "cli/cmd.h"
#include "spec/spec.h"

struct zl_document {
    const char *file; /* as it is shown: "-" is stdin */
    struct zl_str text;
    struct zl_spec *spec;
};

/* `file` NULL: the one of this folder; "-": stdin. */
int zl_document_load(struct zl_cli *cli, const char *file, struct zl_document *ret, struct zl_err *err) ZL_MUST;
/* The deployment's name: `name` when given, else that of the document in this folder. */
int zl_document_name(struct zl_cli *cli, const char *name, const char **ret, struct zl_err *err) ZL_MUST;
