// Package nft writes transactions of nftables to the kernel over netlink.
//
// A transaction is encoded into one buffer and sent with one call, and only its
// last message asks for an acknowledgement: a table of 10,000 services is
// written in the time that the kernel needs for it. The nft program reads the
// whole ruleset before each change, and libraries that request an
// acknowledgement of each message spend their time on these.
//
// Registers are 32 bits wide (NFT_REG32_00 and so on). It imports nothing of
// this module.
package nft
