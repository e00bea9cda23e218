//! What the normal program tells observers: nothing, and not one instruction is spent on it.

use aya_ebpf::programs::XdpContext;
use lb_common::pipeline::Outcome;

/// A packet has come.
#[inline(always)]
pub(crate) const fn begin(_ctx: &XdpContext) {}

/// A packet has been judged.
#[inline(always)]
pub(crate) const fn end(_ctx: &XdpContext, _outcome: &Outcome) {}
