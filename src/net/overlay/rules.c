#include "net/overlay/rules_priv.h"

#include <arpa/inet.h>

static const char *text(struct in_addr a, char ret[INET_ADDRSTRLEN])
{
    return inet_ntop(AF_INET, &a, ret, INET_ADDRSTRLEN);
}

/*
 * Two run-time values can't be compared in nft; a set whose key is (deployment number, address) can be asked instead:
 * the sender's number is looked up by its address and put into the packet's mark, then (mark, receiver) must be a
 * member. The mark lives within one hook; a packet loses it when it leaves the namespace.
 */
void zl_rules_inside(struct zl_buf *b, const struct zl_net_ranges *ranges)
{
    char replicas[INET_ADDRSTRLEN];
    zl_buf_puts(b, "add table inet zlayer\n"
                   "add set inet zlayer members { type mark . ipv4_addr; }\n"
                   "add map inet zlayer owners { type ipv4_addr : mark; }\n"
                   "add chain inet zlayer forward { type filter hook forward priority 0; policy drop; }\n"
                   "add chain inet zlayer input { type filter hook input priority 0; policy drop; }\n"
                   "add chain inet zlayer postrouting { type nat hook postrouting priority 100; }\n"
                   "flush chain inet zlayer forward\n"
                   "flush chain inet zlayer input\n"
                   "flush chain inet zlayer postrouting\n");
#define FORWARD "add rule inet zlayer forward "
#define INPUT   "add rule inet zlayer input "
    /* From outside comes only what was asked for from inside. */
    zl_buf_puts(b, FORWARD "ct state established,related accept\n" FORWARD "iifname uplink drop\n" FORWARD
                           "meta mark set 0\n" FORWARD "meta mark set ip saddr map @owners\n" FORWARD
                           "meta mark . ip daddr @members accept\n");
    zl_buf_printf(b, FORWARD "oifname uplink ip saddr %s/16 accept\n", text(ranges->replicas, replicas));
    /* Refused at once rather than lost, so that a program sees what happens. A reset works where an ICMP error comes
     * too early: while connect() still holds the socket the kernel only notes it, and tells after the first repeat. */
    zl_buf_puts(b,
                FORWARD "meta l4proto tcp reject with tcp reset\n" FORWARD "reject with icmpx type admin-prohibited\n");
    zl_buf_puts(b, INPUT "iifname lo accept\n" INPUT "ct state established,related accept\n" INPUT
                         "iifname uplink drop\n" INPUT "meta mark set 0\n" INPUT
                         "meta mark set ip saddr map @owners\n" INPUT "meta mark . ip daddr @members accept\n" INPUT
                         "meta l4proto tcp reject with tcp reset\n" INPUT "reject with icmpx type admin-prohibited\n");
#undef FORWARD
#undef INPUT
    zl_buf_puts(b, "add rule inet zlayer postrouting oifname uplink masquerade\n");
}

void zl_rules_outside(struct zl_buf *b, const char *tag, const struct zl_uplink *uplink)
{
    char inside[INET_ADDRSTRLEN];
    zl_buf_printf(b,
                  "add table inet zlayer_%s\n"
                  "add chain inet zlayer_%s postrouting { type nat hook postrouting priority 100; }\n"
                  "flush chain inet zlayer_%s postrouting\n",
                  tag, tag, tag);
    zl_buf_printf(b, "add rule inet zlayer_%s postrouting ip saddr %s oifname != \"%s\" masquerade\n", tag,
                  text(uplink->inside, inside), uplink->name);
}
