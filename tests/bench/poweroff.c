// SPDX-License-Identifier: Apache-2.0
/* poweroff.c - the least a machine can do: print a line and power off (tests/bench/boot.sh) */
#include <sys/reboot.h>
#include <unistd.h>

int main(void)
{
    (void)!write(1, "up\n", 3);
    return reboot(RB_POWER_OFF);
}
