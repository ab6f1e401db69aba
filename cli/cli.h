/* cli.h - the subcommands: one file each, all with the shape of main. */
#ifndef RR_CLI_CLI_H
#define RR_CLI_CLI_H

/* Exit codes, the same for every subcommand. */
enum {
    EXIT_OK = 0,
    EXIT_FAILED = 1, /* input, model or device: the message says which */
    EXIT_USAGE = 2   /* unknown flag, missing or bad value             */
};

int cmd_score(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);
int cmd_info(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_eval(int argc, char **argv);
int cmd_demo(int argc, char **argv);
int cmd_calibrate(int argc, char **argv);
int cmd_compare(int argc, char **argv);
int cmd_export(int argc, char **argv);
int cmd_build(int argc, char **argv);
int cmd_check(int argc, char **argv);
int cmd_serve(int argc, char **argv);

#endif
