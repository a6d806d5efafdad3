#include "interrupt.h"

#include "message.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

volatile int interrupt_flag;

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    if (interrupt_flag) _exit(EXIT_INTERRUPTED);
    interrupt_flag = 1;
}

static void catch_with(int flags)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_interrupt;
    action.sa_flags = flags;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
}

void interrupt_catch(void)
{
    catch_with(SA_RESTART);
}

void interrupt_catch_reading(void)
{
    interrupt_flag = 0;
    catch_with(0);
}
