//! What became of a packet, step by step in words.

use std::fmt::Write as _;

use super::{
    fields::{Layer, layers},
    tracer::{Traced, Verdict},
};

/// What the packet was, where it went and why, and which header fields differ when it leaves.
#[must_use]
pub fn explain(frame: &[u8], traced: &Traced) -> String {
    let mut text = String::new();
    let (before, stop) = layers(frame);
    line(
        &mut text,
        format_args!("packet {}: {}", traced.index, traced.verdict),
    );
    step(&mut text, "came as", format_args!("{} bytes", frame.len()));
    show(&mut text, &before);
    if let Some(stop) = stop {
        more(&mut text, format_args!("(no further: {stop})"));
    }
    match &traced.vip {
        Some(vip) => step(&mut text, "VIP", vip),
        None => step(&mut text, "VIP", "none was looked for, or none matches"),
    }
    if let Some(slot) = traced.slot {
        step(
            &mut text,
            "slot",
            format_args!("{slot} of 65536, by the hash of the flow"),
        );
    } else if traced.backend.is_some() {
        step(
            &mut text,
            "slot",
            "not looked at: it follows its first fragment",
        );
    }
    if let Some(backend) = &traced.backend {
        step(&mut text, "backend", backend);
    }
    if traced.verdict.has_left()
        && let Some(packet) = &traced.packet
    {
        let (after, _) = layers(packet);
        step(&mut text, "left as", format_args!("{} bytes", packet.len()));
        show(&mut text, &after);
        changes(&mut text, &before, &after);
    }
    step(
        &mut text,
        "verdict",
        format_args!("{}: {}", traced.verdict, traced.verdict.text()),
    );
    let reason = traced.reason;
    step(
        &mut text,
        "reason",
        format_args!("{}: {}", reason.as_str(), reason.text().trim()),
    );
    if traced.verdict == Verdict::Drop && reason == lb_common::reason::Reason::NoNextHop {
        more(
            &mut text,
            "(in the configuration: `mac` under [[vip.backend]])",
        );
    }
    text.push('\n');
    text
}

/// Which headers and fields differ.
fn changes(text: &mut String, before: &[Layer], after: &[Layer]) {
    let (link_before, net_before) = split(before);
    let (link_after, net_after) = split(after);
    // Tags come and go at their place from the front; what is encapsulated stays at the end.
    let mut changed = compare(text, link_before, link_after);
    let added = net_after.len().saturating_sub(net_before.len());
    let (outer, inner) = net_after
        .split_at_checked(added)
        .unwrap_or((&[], net_after));
    let is_encapsulated =
        added > 0 && names(inner) == names(net_before) && same_ends(inner, net_before);
    if is_encapsulated {
        for layer in outer {
            step_changed(
                text,
                &mut changed,
                format_args!("+ outer {} {}", layer.name, layer.summary),
            );
        }
        changed |= compare_from(text, net_before, inner, changed);
    } else {
        changed |= compare_from(text, net_before, net_after, changed);
    }
    if !changed {
        step(text, "changed", "nothing");
    }
}

fn split(layers: &[Layer]) -> (&[Layer], &[Layer]) {
    let at = layers.iter().take_while(|layer| layer.is_link()).count();
    layers.split_at(at)
}

fn names(layers: &[Layer]) -> Vec<&'static str> {
    layers.iter().map(|layer| layer.name).collect()
}

/// Whether the addresses agree: else it is another packet of the same kind.
fn same_ends(one: &[Layer], other: &[Layer]) -> bool {
    let ends = |layers: &[Layer]| {
        layers
            .first()
            .map(|layer| layer.fields.iter().take(2).cloned().collect::<Vec<_>>())
    };
    ends(one) == ends(other)
}

fn compare(text: &mut String, before: &[Layer], after: &[Layer]) -> bool {
    compare_from(text, before, after, false)
}

/// Compares header by header; `changed` says whether a difference has been shown already. Returns whether one has
/// been shown now or before.
fn compare_from(text: &mut String, before: &[Layer], after: &[Layer], mut changed: bool) -> bool {
    for place in 0..before.len().max(after.len()) {
        match (before.get(place), after.get(place)) {
            (Some(old), Some(new)) if old.name == new.name => {
                for ((field, was), (_, is)) in old.fields.iter().zip(&new.fields) {
                    if was != is {
                        step_changed(
                            text,
                            &mut changed,
                            format_args!("{} {field}: {was} -> {is}", old.name),
                        );
                    }
                }
            }
            (old, new) => {
                if let Some(old) = old {
                    step_changed(
                        text,
                        &mut changed,
                        format_args!("- {} {}", old.name, old.summary),
                    );
                }
                if let Some(new) = new {
                    step_changed(
                        text,
                        &mut changed,
                        format_args!("+ {} {}", new.name, new.summary),
                    );
                }
            }
        }
    }
    changed
}

fn step_changed(text: &mut String, changed: &mut bool, what: impl std::fmt::Display) {
    if *changed {
        more(text, what);
    } else {
        step(text, "changed", what);
    }
    *changed = true;
}

fn show(text: &mut String, layers: &[Layer]) {
    for layer in layers {
        more(text, format_args!("{} {}", layer.name, layer.summary));
    }
}

fn step(text: &mut String, name: &str, what: impl std::fmt::Display) {
    line(text, format_args!("  {name:<8} {what}"));
}

fn more(text: &mut String, what: impl std::fmt::Display) {
    line(text, format_args!("  {:<8} {what}", ""));
}

fn line(text: &mut String, what: impl std::fmt::Display) {
    // Writing to a string cannot fail.
    writeln!(text, "{what}").ok();
}

#[cfg(test)]
mod tests {
    use etherparse::{EtherType, Ethernet2Header, IpNumber, Ipv4Header, PacketBuilder};
    use lb_common::reason::Reason;

    use super::*;

    #[test]
    fn an_outer_header_is_told_from_a_changed_one() {
        let mut before = Vec::new();
        PacketBuilder::ethernet2([4; 6], [6; 6])
            .ipv4([198, 51, 100, 7], [203, 0, 113, 10], 64)
            .tcp(40000, 443, 1, 65535)
            .write(&mut before, b"hello")
            .unwrap();
        let inner = &before[14..];
        let (from, to) = ([10, 0, 0, 1], [10, 0, 0, 11]);
        let outer = Ipv4Header::new(inner.len() as u16, 64, IpNumber::IPV4, from, to).unwrap();
        let ethernet = Ethernet2Header {
            source: [2; 6],
            destination: [8; 6],
            ether_type: EtherType::IPV4,
        };
        let mut after = ethernet.to_bytes().to_vec();
        after.extend(outer.to_bytes());
        after.extend(inner);
        let traced = Traced {
            index: 3,
            verdict: Verdict::Redirect,
            vip: Some("web".to_owned()),
            backend: Some("10.0.0.11".to_owned()),
            slot: Some(7),
            reason: Reason::Forwarded,
            packet: Some(after),
        };
        let text = explain(&before, &traced);
        assert!(
            text.contains("+ outer IPv4 10.0.0.1 > 10.0.0.11, TTL 64\n"),
            "{text}"
        );
        assert!(!text.contains("IPv4 source:"), "{text}");

        let answered = Traced {
            packet: Some(before.clone()),
            ..traced
        };
        assert!(explain(&before, &answered).contains("  changed  nothing\n"));
    }
}
