/* The kernel sets that this machine can run. */
#ifndef CA_TESTS_KERN_LIST_H
#define CA_TESTS_KERN_LIST_H

#include "attn_case.h"

typedef struct kern_list {
    const ca_kern *kern[CA_KERN_REPORTS];
    size_t n;
} kern_list;

/* Best first; the scalar set is always among them. */
static inline kern_list usable_kerns(void)
{
    ca_kern_report reports[CA_KERN_REPORTS];
    const size_t n = ca_kern_reports(NULL, reports, CA_KERN_REPORTS);
    kern_list list = { .n = 0 };
    for (size_t i = 0; i < n; i++)
        if (reports[i].usable) must(ca_kern_choose(reports[i].name, &list.kern[list.n++]), reports[i].name);
    return list;
}

#endif
