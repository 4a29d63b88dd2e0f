#include "cli/commands.h"
#include "cli/node.h"
#include "cli/output.h"
#include "sys/survey.h"

static void print_fix(const struct zl_cli *cli, struct zl_value *list)
{
    for (const struct zl_value *row = list->first; row; row = row->next) {
        const char *fix = zl_value_cstr(row, "fix");
        if (fix[0])
            zl_say(cli, "%s%s:%s %s", zl_style(&cli->out, ZL_BOLD), zl_value_cstr(row, "name"),
                   zl_style(&cli->out, ZL_PLAIN), fix);
    }
}

static const struct zl_column columns[] = {
    { "CHECK", "name", 0, NULL },
    { "RESULT", "result", ZL_COLUMN_STATE, NULL },
    { "FOUND", "found", ZL_COLUMN_CUT, NULL },
};
static const struct zl_listing listing = { columns, ZL_ARRAY_LEN(columns), "name", NULL };

static int run(struct zl_cli *cli, void *options, struct zl_err *err)
{
    (void)options;
    struct zl_client *c;
    int e = zl_cli_client(cli, ZL_NEVER_START, &c, err);
    if (e < 0)
        return e;
    struct zl_survey_row rows[ZL_SURVEY_ROWS];
    size_t n = zl_survey(c->place.data, rows);
    struct zl_arena *a = &cli->arena;
    struct zl_value *list = zl_value_new(a, ZL_LIST);
    bool missing = false;
    for (size_t i = 0; i < n; i++) {
        struct zl_value *row = zl_value_new(a, ZL_MAP);
        zl_value_set(a, row, "name", zl_value_string(a, zl_str(rows[i].name)));
        zl_value_set(a, row, "result", zl_value_string(a, zl_str(zl_survey_level_text(rows[i].level))));
        zl_value_set(a, row, "found", zl_value_string(a, zl_str(rows[i].found)));
        zl_value_set(a, row, "fix", zl_value_string(a, zl_str(rows[i].fix)));
        zl_value_append(list, row);
        missing |= rows[i].level == ZL_SURVEY_FAIL;
    }
    zl_output_list(cli, &listing, list);
    if (cli->globals.format == ZL_FORMAT_TABLE || cli->globals.format == ZL_FORMAT_WIDE)
        print_fix(cli, list);
    return missing;
}

static const struct zl_example examples[] = {
    { "zlayer doctor", "what works here, what doesn't, what follows" },
    { "zlayer doctor -o json", "for programs" },
};
const struct zl_cmd zl_cmd_doctor = {
    .name = "doctor",
    .summary = "Check what this machine can and can't do",
    .details = "Exits with 1 only when something is missing without which no container runs.",
    .group = ZL_GROUP_NODE,
    .flags = ZL_CMD_OUTPUT,
    ZL_CMD_EXAMPLES(examples),
    .run = run,
};
