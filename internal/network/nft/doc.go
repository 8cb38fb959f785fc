// Package nft writes transactions of nftables to the kernel over netlink.
//
// A transaction is encoded into one buffer and sent with one call, and only its
// last message asks for an acknowledgement: a table of 10,000 services is
// written in the time that the kernel needs for it. The nft program would read
// the whole ruleset back before each change, and libraries that ask for an
// answer to each message spend their time on the answers.
//
// Registers are 32 bits wide (NFT_REG32_00 and so on). It imports nothing of
// this module.
package nft
