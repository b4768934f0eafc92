#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# greet.pl - a service on vsock port 5000: "NAME" is greeted, "call" makes it connect to the host's port 5001,
# "bye" ends the connection
use strict;
use warnings;
use Socket qw(SOCK_STREAM);

# vsock(7); linux/vm_sockets.h: struct sockaddr_vm is family, reserved, port, cid, four bytes of zeros.
use constant {AF_VSOCK => 40, CID_ANY => 0xffffffff, CID_HOST => 2};
sub address { my ($cid, $port) = @_; return pack 'S S L L x4', AF_VSOCK, 0, $port, $cid; }

$| = 1;
socket my $listener, AF_VSOCK, SOCK_STREAM, 0 or die "socket: $!\n";
bind $listener, address(CID_ANY, 5000) or die "bind: $!\n";
listen $listener, 8 or die "listen: $!\n";
print "greeter: listening\n";

while (accept my $client, $listener) {
    select $client;
    $| = 1;
    while (my $line = <$client>) {
        chomp $line;
        last if $line eq 'bye';
        if ($line ne 'call') {
            print $client "hello, $line\n";
            next;
        }
        my $host;
        if (socket($host, AF_VSOCK, SOCK_STREAM, 0) && connect($host, address(CID_HOST, 5001))) {
            print $host "greetings from the guest\n"; # close writes it
            close $host;
            print $client "called\n";
        } else {
            print $client "nobody listens: $!\n";
        }
    }
    select STDOUT;
    close $client;
}
