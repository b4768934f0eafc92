/* SPDX-License-Identifier: Apache-2.0 */
/* announce.h - telling the neighbours on a link where the link's own addresses are
 *
 * Theory of operation: a machine that has moved keeps its addresses, but what is around it does
 * not: its gateway may have another link address here, and a switch knows the machine behind
 * another port. Neighbours find out by themselves only after they have lost packets for seconds. So
 * both ends of the machine's link speak up: the peer announces the tap's addresses to the guest
 * (runtime/peer), and drafter-agent in the guest its own to whatever is behind the tap
 * (blueprint/guest): nobody knows them better.
 *
 * Needs nothing but runtime/base and libc, for the guest.
 */
#ifndef RUNTIME_NET_ANNOUNCE_H
#define RUNTIME_NET_ANNOUNCE_H

#include "runtime/base/error.h"

/* Sends a gratuitous ARP (RFC 5227 section 3) for each IPv4 address, an unsolicited neighbour
 * advertisement (RFC 4861 section 7.2.6) for each IPv6 address of a link in the thread's network
 * namespace. link: NULL = of each Ethernet link that is up; those that are not are passed over
 * then, else they are ENETDOWN and EOPNOTSUPP. *ret_count (may be NULL): frames sent. Needs
 * CAP_NET_RAW. Returns 0. */
int net_announce(const char *link, unsigned *ret_count, struct error *err);

#endif
