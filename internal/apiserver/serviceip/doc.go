// Package serviceip gives Services their cluster addresses and node ports. An
// address is taken by making the IPAddress object of its name, in one of the ranges
// of the ServiceCIDRs (KEP-1880), so that several servers give none out twice; node
// ports are in memory, built from the Services that there are. A Keeper
// makes the default range and repairs what disagrees. It may import packages api,
// component and store.
package serviceip
