//! IPv4 options, toward every kind of backend.

use super::{
    case::{Case, forwards},
    ip::{Family, tcp, udp},
    world::WAYS,
};

pub(crate) fn cases() -> Vec<Case> {
    let mut record_route = [0; 40];
    record_route[..3].copy_from_slice(&[7, 39, 4]);
    let kinds: [(&str, &[u8]); 4] = [
        ("no operation and end of list", &[1, 1, 1, 0]),
        ("router alert", &[0x94, 4, 0, 0]),
        ("timestamps", &[0x44, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("40 bytes, as many as there may be", &record_route),
    ];
    let mut cases = Vec::new();
    for (way, port) in WAYS {
        for (name, options) in kinds {
            for (protocol, ip) in [
                ("TCP", tcp(Family::V4, port)),
                ("UDP", udp(Family::V4, port)),
            ] {
                cases.push(forwards(
                    format!("{protocol} in {way:?}: {name}"),
                    &[],
                    &ip.options(options),
                    port,
                ));
            }
        }
    }
    cases
}
