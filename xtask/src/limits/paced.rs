//! Frames sent at a pace, with the moments at which they were.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::lab::FrameSocket;

/// How long the sender sleeps where nothing is due.
const NAP: Duration = Duration::from_micros(200);

/// Frames that are sent in turn, at a pace.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) frames: Vec<Vec<u8>>,
    /// Frames a second, of all together.
    pub(super) per_second: u32,
}

/// What was sent.
#[derive(Debug)]
pub(super) struct Sent {
    /// From before the first frame to behind the last.
    pub(super) time: Duration,
    /// When each frame of each stream was sent, since the beginning.
    pub(super) moments: Vec<Vec<Duration>>,
}

/// Sends by an interface of this thread's namespace while `goes_on` says so of the time since the first frame.
pub(super) fn send(
    nic: &str,
    streams: &[Stream],
    goes_on: impl Fn(Duration) -> bool,
) -> Result<Sent> {
    let socket = FrameSocket::open(nic)?;
    let mut moments = vec![Vec::new(); streams.len()];
    let began = Instant::now();
    loop {
        let now = began.elapsed();
        if !goes_on(now) {
            break;
        }
        let mut is_idle = true;
        for (stream, moments) in streams.iter().zip(&mut moments) {
            let due = now.as_micros() * u128::from(stream.per_second) / 1_000_000 + 1;
            let due = usize::try_from(due).unwrap_or(usize::MAX);
            // A few at a time, so that none waits for another that is behind.
            let late = due.saturating_sub(moments.len()).min(32);
            for _ in 0..late {
                let next = moments.len() % stream.frames.len();
                if let Some(frame) = stream.frames.get(next) {
                    socket.send(frame)?;
                    moments.push(began.elapsed());
                    is_idle = false;
                }
            }
        }
        if is_idle {
            std::thread::sleep(NAP);
        }
    }
    Ok(Sent {
        time: began.elapsed(),
        moments,
    })
}

/// How many of the frames that come at these moments are within a limit, counted in whole nanoseconds.
pub(super) fn within(moments: &[Duration], per_second: u32, burst: u32) -> u64 {
    let interval = 1_000_000_000 / u64::from(per_second);
    let depth = interval * u64::from(burst);
    let mut paid = 0;
    let mut passed = 0;
    for moment in moments {
        let now = moment.as_nanos() as u64;
        let start = paid.max(now);
        if start + interval - now <= depth {
            paid = start + interval;
            passed += 1;
        }
    }
    passed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_lets_its_burst_and_its_rate_through() {
        let moments: Vec<_> = (0..100_000)
            .map(|n| Duration::from_micros(n * 100))
            .collect();
        assert_eq!(within(&moments, 1000, 50), 10_000 + 49);
        assert_eq!(within(&moments[..10], 1000, 50), 10);
    }
}
