/* Every command, one file each; commands.c lists them in the order of the help. Thread: any. Owns: nothing, const. */
#pragma once

#include "cli/cmd.h"

extern const struct zl_cmd zl_cmd_up, zl_cmd_deploy, zl_cmd_down, zl_cmd_stop, zl_cmd_exec;
extern const struct zl_cmd zl_cmd_status, zl_cmd_ps, zl_cmd_logs;
extern const struct zl_cmd zl_cmd_pull, zl_cmd_push, zl_cmd_login, zl_cmd_logout, zl_cmd_image;
extern const struct zl_cmd zl_cmd_image_referrers;
extern const struct zl_cmd zl_cmd_image_history, zl_cmd_image_tag, zl_cmd_image_prune, zl_cmd_image_df;
extern const struct zl_cmd zl_cmd_image_diff, zl_cmd_image_fsck;
extern const struct zl_cmd zl_cmd_image_save, zl_cmd_image_export, zl_cmd_image_load;
extern const struct zl_cmd zl_cmd_validate, zl_cmd_spec;
extern const struct zl_cmd zl_cmd_oci, zl_cmd_serve, zl_cmd_doctor, zl_cmd_version, zl_cmd_completion, zl_cmd_help;
extern const struct zl_cmd zl_cmd_complete, zl_cmd_man;
