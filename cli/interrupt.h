/* Ctrl-C: the first asks to stop, the second ends the process with exit code 130. */
#ifndef CLI_INTERRUPT_H
#define CLI_INTERRUPT_H

/* Non-zero after the first Ctrl-C; what ca_prefill_opt.cancel points to. */
extern volatile int interrupt_flag;

/* Takes over SIGINT from now on. */
void interrupt_catch(void);

/* The same before reading a line: forgets an earlier Ctrl-C, and the next one ends the read with EINTR. */
void interrupt_catch_reading(void);

#endif
