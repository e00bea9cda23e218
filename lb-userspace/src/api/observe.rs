//! `GET /v1/capture` and `GET /v1/packets`: what becomes of packets, for as long as the peer reads.

use std::{convert::Infallible, time::Duration};

use axum::{
    Extension,
    body::Body,
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse as _, Response},
};
use futures_util::stream;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};

use super::{
    Actor, CaptureFilter, Handle, PacketFilter, PacketSeen, Refusal,
    request::Asked,
    server::{answer, refused},
};
use crate::{
    http::ErrorBody,
    observe::{Capture, Side, Subscription, Wanted, seen},
};

/// Path of captures.
pub(super) const CAPTURE: &str = "/v1/capture";

/// How long the program that observes may take to load; less than the client waits.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often a capture tells what was skipped.
const STATISTICS: Duration = Duration::from_secs(1);

/// Records that are sent as one piece.
const PIECE: usize = 256;

/// Sampled packets and what became of them, one JSON object a line, until the peer goes.
#[utoipa::path(get, path = "/v1/packets", params(PacketFilter), responses(
    (status = 200, body = PacketSeen, content_type = "application/x-ndjson"),
    (status = "default", body = ErrorBody)))]
pub(super) async fn packets(
    State(handle): State<Handle>,
    Asked(filter): Asked<PacketFilter>,
) -> Response {
    let packets = match watch(&handle, filter.wanted()).await {
        Ok(packets) => packets,
        Err(response) => return response,
    };
    let sample = filter.sample();
    let lines = stream::unfold(packets, move |mut packets| async move {
        let records = packets.next(PIECE).await?;
        let (names, wall, skipped) = (packets.names(), packets.wall(), packets.skipped());
        let mut lines = String::new();
        for record in &records {
            let seen = seen(record, &names, wall, sample, skipped);
            // A packet always has a form as JSON.
            if let Some(Ok(line)) = seen.map(|seen| serde_json::to_string(&seen)) {
                lines.push_str(&line);
                lines.push('\n');
            }
        }
        Some((Ok::<_, Infallible>(lines), packets))
    });
    let kind = (CONTENT_TYPE, "application/x-ndjson");
    ([kind], Body::from_stream(lines)).into_response()
}

/// Packets as they came and as they left, with what was decided, as a pcapng file. For those who may write.
#[utoipa::path(get, path = "/v1/capture", params(CaptureFilter), responses(
    (status = 200, body = Vec<u8>, content_type = "application/x-pcapng"),
    (status = "default", body = ErrorBody)))]
pub(super) async fn capture(
    State(handle): State<Handle>,
    Extension(actor): Extension<Actor>,
    Asked(filter): Asked<CaptureFilter>,
) -> Response {
    let packets = match watch(&handle, filter.wanted()).await {
        Ok(packets) => packets,
        Err(response) => return response,
    };
    tracing::info!(by = %actor, ?filter, "a capture begins");
    let begun = Capture::begin(
        format!("weir capture: {}", of(&filter)),
        &packets.names(),
        packets.wall(),
        filter.side.unwrap_or_default(),
        filter.saved(),
    );
    let capture = match begun {
        Ok(capture) => capture,
        Err(error) => return refused(&Refusal::Failed(error.to_string())),
    };
    let mut statistics = interval(STATISTICS);
    statistics.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let under_way = UnderWay {
        packets,
        capture,
        statistics,
        count: filter.count,
        end: Instant::now() + filter.time(),
        is_over: false,
    };
    let pieces = stream::unfold(under_way, |mut under_way| async {
        let piece = under_way.next().await?;
        Some((piece.map_err(std::io::Error::other), under_way))
    });
    let kind = (CONTENT_TYPE, "application/x-pcapng");
    ([kind], Body::from_stream(pieces)).into_response()
}

/// A capture that somebody reads.
struct UnderWay {
    packets: Subscription,
    capture: Capture,
    statistics: Interval,
    count: Option<u64>,
    end: Instant,
    is_over: bool,
}

impl UnderWay {
    /// The next blocks of the file.
    async fn next(&mut self) -> Option<pcap_file::PcapResult<Vec<u8>>> {
        if self.is_over {
            return None;
        }
        Some(self.go_on().await.map(|()| self.capture.take()))
    }

    async fn go_on(&mut self) -> pcap_file::PcapResult<()> {
        let left = self.count.map_or(u64::MAX, |count| {
            count.saturating_sub(self.capture.captured())
        });
        let most = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        if most == 0 {
            return self.finish();
        }
        tokio::select! {
            records = self.packets.next(most) => {
                // The daemon ends.
                let Some(records) = records else { return self.finish() };
                let names = self.packets.names();
                for record in records {
                    self.capture.packet(&record, &names)?;
                }
                Ok(())
            }
            _ = self.statistics.tick() => self.capture.statistics(self.packets.skipped()),
            () = sleep_until(self.end) => self.finish(),
        }
    }

    fn finish(&mut self) -> pcap_file::PcapResult<()> {
        self.is_over = true;
        self.capture.statistics(self.packets.skipped())
    }
}

/// Begins a watch, or answers why not.
async fn watch(handle: &Handle, wanted: Result<Wanted, String>) -> Result<Subscription, Response> {
    let wanted = wanted.map_err(|error| refused(&Refusal::Malformed(error)))?;
    let watched = handle.watch(wanted, PATIENCE).await;
    let watched = watched.map_err(|error| answer::<()>(Err(error)))?;
    watched.map_err(|refusal| refused(&refusal))
}

/// What a capture is of, in words.
fn of(filter: &CaptureFilter) -> String {
    let named = |name: &str, value: Option<String>| value.map(|value| format!("{name} {value}"));
    let parts = [
        named("vip", filter.vip.clone()),
        named("reason", filter.reason.clone()),
        named("from", filter.from.map(|prefix| prefix.to_string())),
        named("to", filter.to.map(|prefix| prefix.to_string())),
        named(
            "side",
            filter.side.map(|side: Side| side.as_str().to_owned()),
        ),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    if parts.is_empty() {
        "every packet".to_owned()
    } else {
        parts.join(", ")
    }
}
