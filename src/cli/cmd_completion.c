#include "cli/commands.h"
#include "cli/output.h"

/* The scripts know nothing of the commands: they ask `zlayer __complete`, which reads the tables. */
static const char bash_script[] =
    "# zlayer completion for bash: source <(zlayer completion bash)\n"
    "_zlayer() {\n"
    "    local line=${COMP_LINE:0:COMP_POINT} cur reply value strip=''\n"
    "    local -a words\n"
    "    read -ra words <<<\"$line\"\n"
    "    [[ $line == *[[:space:]] ]] && words+=('')\n"
    "    cur=${words[${#words[@]}-1]}\n"
    "    # Readline has already split the word at = and :, and replaces only what follows the last of them.\n"
    "    [[ $cur == *[=:]* ]] && strip=${cur%\"${cur##*[=:]}\"}\n"
    "    COMPREPLY=()\n"
    "    while IFS= read -r reply; do\n"
    "        case $reply in\n"
    "        :files) compopt -o filenames; while IFS= read -r value; do COMPREPLY+=(\"$value\"); done < <(compgen -f "
    "-- \"${cur#\"$strip\"}\") ;;\n"
    "        :folders) compopt -o filenames; while IFS= read -r value; do COMPREPLY+=(\"$value\"); done < <(compgen -d "
    "-- \"${cur#\"$strip\"}\") ;;\n"
    "        *) value=${reply%%$'\\t'*}; COMPREPLY+=(\"${value#\"$strip\"}\") ;;\n"
    "        esac\n"
    "    done < <(\"${words[0]}\" __complete \"${words[@]:1}\" 2>/dev/null)\n"
    "}\n"
    "complete -F _zlayer zlayer\n";

static const char zsh_script[] =
    "#compdef zlayer\n"
    "# zlayer completion for zsh: zlayer completion zsh > \"${fpath[1]}/_zlayer\"\n"
    "_zlayer() {\n"
    "    local line\n"
    "    local -a values\n"
    "    for line in \"${(@f)$(\"${words[1]}\" __complete \"${(@)words[2,CURRENT]}\" 2>/dev/null)}\"; do\n"
    "        case $line in\n"
    "        '') ;;\n"
    "        :files) _files ;;\n"
    "        :folders) _files -/ ;;\n"
    "        *) values+=(\"${${line%%$'\\t'*}//:/\\\\:}:${line#*$'\\t'}\") ;;\n"
    "        esac\n"
    "    done\n"
    "    (( ${#values} )) && _describe zlayer values\n"
    "}\n"
    "if [ \"$funcstack[1]\" = _zlayer ]; then _zlayer \"$@\"; else compdef _zlayer zlayer; fi\n";

static const char fish_script[] =
    "# zlayer completion for fish: zlayer completion fish > ~/.config/fish/completions/zlayer.fish\n"
    "function __zlayer_complete\n"
    "    set -l words (commandline -opc) (commandline -ct)\n"
    "    for line in ($words[1] __complete $words[2..-1] 2>/dev/null)\n"
    "        switch $line\n"
    "            case ':files'\n"
    "                __fish_complete_path (commandline -ct)\n"
    "            case ':folders'\n"
    "                __fish_complete_directories (commandline -ct)\n"
    "            case '*'\n"
    "                echo $line\n"
    "        end\n"
    "    end\n"
    "end\n"
    "complete -c zlayer -f -a '(__zlayer_complete)'\n";

struct options {
    const char *shell;
};

static int run_completion(struct zl_cli *cli, void *options, struct zl_err *err)
{
    static const struct {
        const char *name, *script;
    } rows[] = { { "bash", bash_script }, { "zsh", zsh_script }, { "fish", fish_script } };
    const struct options *o = options;
    for (unsigned i = 0; i < ZL_ARRAY_LEN(rows); i++) {
        if (zl_streq(o->shell, rows[i].name)) {
            zl_term_write(&cli->out, zl_str(rows[i].script));
            return 0;
        }
    }
    return zl_hint(err, zl_fail(err, ZL_E_USAGE, "'%.40s' is no shell that can be completed", o->shell),
                   "there are: bash, zsh, fish");
}

static const char *const shells[] = { "bash", "zsh", "fish", NULL };
static const struct zl_arg completion_args[] = {
    { "SHELL", offsetof(struct options, shell), 0, "bash, zsh or fish", shells },
};
static const struct zl_example completion_examples[] = {
    { "source <(zlayer completion bash)", "for this shell" },
    { "zlayer completion fish > ~/.config/fish/completions/zlayer.fish", "for good" },
};
const struct zl_cmd zl_cmd_completion = {
    .name = "completion",
    .summary = "Print the completion script of a shell",
    .details = "Completes commands, options, their values, and the names of what is deployed.",
    .group = ZL_GROUP_NODE,
    ZL_CMD_EXAMPLES(completion_examples),
    ZL_CMD_ARGS(completion_args),
    .size = sizeof(struct options),
    .run = run_completion,
};

struct words {
    struct zl_strings words;
};

static int run_complete(struct zl_cli *cli, void *options, struct zl_err *err)
{
    (void)err;
    const struct words *o = options;
    zl_auto_buf out = ZL_BUF_INIT;
    zl_complete_words(cli, &out, o->words.v, o->words.n);
    zl_term_write(&cli->out, zl_buf_view(&out));
    return 0;
}

static const struct zl_arg complete_args[] = {
    { "WORD", offsetof(struct words, words), ZL_ARG_OPTIONAL | ZL_ARG_REST, "what was typed so far" },
};
static const struct zl_example complete_examples[] = { { "zlayer __complete de", "what can stand there" } };
const struct zl_cmd zl_cmd_complete = {
    .name = "__complete",
    .summary = "Print what can stand at the end of a command line",
    .group = ZL_GROUP_HIDDEN,
    .flags = ZL_CMD_RAW,
    ZL_CMD_EXAMPLES(complete_examples),
    ZL_CMD_ARGS(complete_args),
    .size = sizeof(struct words),
    .run = run_complete,
};
