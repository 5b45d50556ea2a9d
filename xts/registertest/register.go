// Package registertest shows tests what vector registers hold when a function
// has returned: call the function and then, with nothing in between, the one
// that copies them.
package registertest
