#include "cli/cmd.h"

int main(int argc, char **argv)
{
    return zl_cli_main(argc, argv);
}
