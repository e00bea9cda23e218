//! What is told of a Service, as an Event on it.

use std::net::IpAddr;

use super::objects::{Key, Service};

/// What happened, in a word that scripts can look for.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Reason {
    /// It has an address now.
    AddressAssigned,
    /// It may not have, or serve, an address that others have.
    AddressInUse,
    /// No pool that is for it has the address that it asks for.
    AddressNotInPool,
    /// The addresses that it asks for cannot be understood.
    InvalidAddresses,
    /// An annotation cannot be used, and is not.
    InvalidAnnotation,
    /// There is no pool for it.
    NoPool,
    /// Its pools are full.
    PoolExhausted,
    /// A port is of a protocol that weir does not balance.
    UnsupportedProtocol,
    /// What it wants cannot be served.
    NotServed,
}

impl Reason {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AddressAssigned => "AddressAssigned",
            Self::AddressInUse => "AddressInUse",
            Self::AddressNotInPool => "AddressNotInPool",
            Self::InvalidAddresses => "InvalidAddresses",
            Self::InvalidAnnotation => "InvalidAnnotation",
            Self::NoPool => "NoPool",
            Self::PoolExhausted => "PoolExhausted",
            Self::UnsupportedProtocol => "UnsupportedProtocol",
            Self::NotServed => "NotServed",
        }
    }
}

/// Something to tell of a Service.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Told {
    /// Of which.
    pub service: Key,
    /// Of which of all that had this name.
    pub uid: String,
    /// What.
    pub reason: Reason,
    /// In a sentence.
    pub text: String,
}

impl Told {
    pub(super) fn warning((key, service): (&Key, &Service), reason: Reason, text: String) -> Self {
        Self {
            service: key.clone(),
            uid: service.uid.clone(),
            reason,
            text,
        }
    }

    pub(super) fn assigned(of: (&Key, &Service), address: IpAddr, how: &str) -> Self {
        let text = format!("{address} is assigned, {how}");
        Self::warning(of, Reason::AddressAssigned, text)
    }

    /// Whether it is something to look at.
    #[must_use]
    pub fn is_warning(&self) -> bool {
        self.reason != Reason::AddressAssigned
    }
}
