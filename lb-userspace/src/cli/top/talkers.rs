//! Who sends most, from sampled packets: windows of time over a sketch, and how much to sample. Pure.

use std::{net::IpAddr, time::Duration};

use super::{
    model::{SampledSource, SampledSources},
    rates::float,
    sketch::{Counter, Sketch},
};
use crate::api::PacketSeen;

/// How many sources have a counter.
const COUNTERS: usize = 1024;

/// For how long is counted before it is told, at least: with fewer samples estimates would jump.
const WINDOW: Duration = Duration::from_secs(2);

/// How many samples a second are wanted at most.
const WANTED: f64 = 1000.0;

/// How many sources are told.
pub(super) const TOP: usize = 50;

/// One window of time.
#[derive(Clone, Debug)]
struct Window {
    began: Duration,
    sketch: Sketch<IpAddr>,
    samples: u64,
    /// Packets that were drawn, and not told: they came too fast.
    skipped: u64,
    /// The largest sample rate in it.
    sample: u32,
}

impl Window {
    fn new(began: Duration) -> Self {
        Self {
            began,
            sketch: Sketch::new(COUNTERS),
            samples: 0,
            skipped: 0,
            sample: 1,
        }
    }

    fn told(&self, now: Duration) -> SampledSources {
        let seconds = now.saturating_sub(self.began).as_secs_f64().max(0.001);
        // What was skipped is taken to be like what was told.
        let told = float(self.samples) / float((self.samples + self.skipped).max(1));
        let seconds_told = seconds * told.max(f64::MIN_POSITIVE);
        let source = |(source, counter): (&IpAddr, Counter)| SampledSource {
            source: *source,
            packets_per_second: float(counter.count) / seconds_told,
            bits_per_second: float(counter.beside) * 8.0 / seconds_told,
            // Samples are a Poisson process: two standard deviations.
            error_per_second: 2.0 * float(counter.times).sqrt() * f64::from(self.sample)
                / seconds_told,
        };
        SampledSources {
            unavailable: None,
            sample: self.sample,
            samples: self.samples,
            seconds,
            overestimate_per_second: float(self.sketch.bound()) / seconds_told,
            top: self.sketch.top(TOP).map(source).collect(),
        }
    }
}

/// The sources of the last window, and of the one that is open.
#[derive(Clone, Debug)]
pub(super) struct Talkers {
    open: Window,
    told: Option<SampledSources>,
    /// Samples drawn since the last look, which began then.
    seen: (u64, Duration),
    /// How many the stream has skipped since it was opened.
    skipped: u64,
}

impl Talkers {
    /// Nobody yet.
    pub(super) fn new(now: Duration) -> Self {
        Self {
            open: Window::new(now),
            told: None,
            seen: (0, now),
            skipped: 0,
        }
    }

    /// Begins a window: before, nothing was sampled.
    pub(super) fn begin(&mut self, now: Duration) {
        self.open = Window::new(now);
        self.seen = (0, now);
        self.skipped = 0;
    }

    /// Counts sampled packets.
    pub(super) fn add_all(&mut self, packets: &[PacketSeen]) {
        for packet in packets {
            self.add(packet);
        }
    }

    /// Counts a sampled packet. One without an IP header has no source.
    fn add(&mut self, packet: &PacketSeen) {
        let sample = packet.sample.max(1);
        if let Some(source) = packet.source {
            let bytes = u64::from(packet.length_bytes) * u64::from(sample);
            self.open.sketch.add(source, u64::from(sample), bytes);
        }
        let skipped = packet.skipped.saturating_sub(self.skipped);
        self.skipped = packet.skipped;
        self.open.samples += 1;
        self.open.skipped += skipped;
        self.open.sample = self.open.sample.max(sample);
        self.seen.0 += 1 + skipped;
    }

    /// The sources of the last window that is over; of the first as far as it has come.
    pub(super) fn told(&mut self, now: Duration) -> SampledSources {
        if now.saturating_sub(self.open.began) >= WINDOW {
            let over = std::mem::replace(&mut self.open, Window::new(now));
            self.told = Some(over.told(now));
        }
        self.told.clone().unwrap_or_else(|| self.open.told(now))
    }

    /// How many packets a second there are, as samples tell since the last look.
    pub(super) fn packets_per_second(&mut self, now: Duration, sample: u32) -> f64 {
        let (samples, began) = std::mem::replace(&mut self.seen, (0, now));
        let seconds = now.saturating_sub(began).as_secs_f64().max(0.001);
        float(samples) * f64::from(sample) / seconds
    }
}

/// One packet of how many is to be looked at, for so many packets a second; `now` holds while it does about that.
pub(super) fn sample_for(packets_per_second: f64, now: Option<u32>) -> u32 {
    /// So that a packet still weighs less than a window of 100 Gbit/s in the smallest frames.
    const MOST: u32 = 1 << 20;
    let mut sample = 1_u32;
    while packets_per_second / f64::from(sample) > WANTED && sample < MOST {
        sample *= 2;
    }
    match now {
        // Fewer samples than wanted are fine, down to a quarter.
        Some(now) if now >= sample && now / 4 <= sample => now,
        _ => sample,
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "rates that are whole numbers are exact")]
mod tests {
    use super::*;

    fn packet(source: &str, length_bytes: u32, sample: u32) -> PacketSeen {
        PacketSeen {
            time: "2026-11-23T21:14:12.345678Z".to_owned(),
            vip: None,
            backend: None,
            slot: None,
            verdict: "drop".to_owned(),
            reason: "malformed".to_owned(),
            source: source.parse().ok(),
            source_port: None,
            destination: None,
            destination_port: None,
            protocol: None,
            length_bytes,
            sample,
            skipped: 0,
        }
    }

    #[test]
    fn rates_are_those_of_the_last_window() {
        let second = Duration::from_secs;
        let mut talkers = Talkers::new(second(10));
        for _ in 0..20 {
            talkers.add(&packet("192.0.2.1", 100, 50));
        }
        talkers.add(&packet("2001:db8::1", 1000, 50));
        let first = talkers.told(second(11));
        assert_eq!((first.samples, first.sample), (21, 50));
        assert_eq!(first.top[0].packets_per_second, 1000.0);
        // The window is over: half of that a second.
        let told = talkers.told(second(12));
        let rates: Vec<_> = told
            .top
            .iter()
            .map(|one| (one.packets_per_second, one.bits_per_second))
            .collect();
        assert_eq!(rates, [(500.0, 400_000.0), (25.0, 200_000.0)]);
        assert_eq!(told.overestimate_per_second, 0.0);
        assert!((told.top[0].error_per_second - 223.6).abs() < 0.1);
        // It stays until the next is over, which has nobody in it.
        assert_eq!(talkers.told(second(13)), told);
        assert_eq!(talkers.told(second(14)).top, []);
    }

    #[test]
    fn what_was_skipped_is_taken_to_be_like_the_rest() {
        let mut talkers = Talkers::new(Duration::ZERO);
        let skips = |skipped| PacketSeen {
            skipped,
            ..packet("192.0.2.1", 100, 2)
        };
        talkers.add(&skips(1000));
        // A stream that is opened again counts from 0 again, and so do we.
        talkers.begin(Duration::ZERO);
        talkers.add_all(&[3, 6, 9, 12].map(skips));
        // One without a source is a packet all the same.
        talkers.add(&PacketSeen {
            skipped: 12,
            ..packet("", 100, 2)
        });
        let told = talkers.told(Duration::from_secs(1));
        // 5 of 17 were told; 4 of them are of the source, and each stands for 2.
        let wanted = 4.0 * 2.0 * 17.0 / 5.0;
        assert!(
            (told.top[0].packets_per_second - wanted).abs() < 1e-9,
            "{told:?}"
        );
        assert_eq!((told.samples, told.top.len()), (5, 1));
        let all = talkers.packets_per_second(Duration::from_secs(1), 2);
        assert_eq!(all, 34.0);
    }

    #[test]
    fn samples_tell_how_much_there_is() {
        let mut talkers = Talkers::new(Duration::ZERO);
        (0..10).for_each(|_| talkers.add(&packet("192.0.2.1", 100, 4)));
        assert_eq!(talkers.packets_per_second(Duration::from_secs(2), 4), 20.0);
        assert_eq!(talkers.packets_per_second(Duration::from_secs(4), 4), 0.0);
    }

    #[test]
    fn no_more_than_a_thousand_samples_a_second_are_wanted() {
        for (rate, sample) in [
            (0.0, 1),
            (1000.0, 1),
            (1001.0, 2),
            (1e6, 1024),
            (1e30, 1 << 20),
        ] {
            assert_eq!(sample_for(rate, None), sample);
        }
        // What there is holds while there are neither too many nor too few.
        assert_eq!(sample_for(9_000.0, Some(16)), 16);
        assert_eq!(sample_for(4_000.0, Some(16)), 16);
        assert_eq!(sample_for(2_000.0, Some(16)), 2);
        assert_eq!(sample_for(17_000.0, Some(16)), 32);
    }
}
