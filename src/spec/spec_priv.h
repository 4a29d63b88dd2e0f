/* The functions that rows of the document's tables name. Thread, owner, failures: as spec.h. */
#pragma once

#include "spec/spec.h"

const struct zl_value *zl_spec_image_form(struct zl_decoder *d, const struct zl_value *v);
const struct zl_value *zl_spec_command_form(struct zl_decoder *d, const struct zl_value *v);
void zl_spec_decode_env(struct zl_decoder *d, const struct zl_value *v, void *field);
struct zl_value *zl_spec_print_env(struct zl_arena *arena, const void *field);
void zl_spec_check_image(struct zl_decoder *d, const struct zl_value *v, void *object);
void zl_spec_check_command(struct zl_decoder *d, const struct zl_value *v, void *object);
void zl_spec_check_endpoint(struct zl_decoder *d, const struct zl_value *v, void *object);
void zl_spec_check_scale(struct zl_decoder *d, const struct zl_value *v, void *object);
void zl_spec_check_check(struct zl_decoder *d, const struct zl_value *v, void *object);
void zl_spec_check_health(struct zl_decoder *d, const struct zl_value *v, void *object);
void zl_spec_check_depend(struct zl_decoder *d, const struct zl_value *v, void *object);
void zl_spec_check_service(struct zl_decoder *d, const struct zl_value *v, void *object);
void zl_spec_check_spec(struct zl_decoder *d, const struct zl_value *v, void *object);
