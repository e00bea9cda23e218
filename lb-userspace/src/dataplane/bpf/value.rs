//! The bridge between lb-common's map types, which know nothing of aya, and aya, which wants its own trait.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A map value: any of lb-common's plain old data.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(super) struct Value<T>(pub(super) T);

// SAFETY: `T` has no padding (`IntoBytes`), takes any bytes (`FromBytes`) and has no interior mutability
// (`Immutable`), and `Value` has its very layout.
unsafe impl<T: Copy + FromBytes + IntoBytes + Immutable + KnownLayout + 'static> aya::Pod
    for Value<T>
{
}

impl<T> Value<T> {
    /// The same bytes as a map value, without a copy: some are 256 KiB.
    pub(super) fn from_ref(value: &T) -> &Self {
        // SAFETY: `Value` is a transparent wrapper, so that a valid `T` is a valid `Value<T>`.
        unsafe { &*std::ptr::from_ref(value).cast::<Self>() }
    }
}
