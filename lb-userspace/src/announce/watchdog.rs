//! `weir watchdog`: takes the routes of VIPs away whose daemon is gone for good.
//!
//! Routes outlive their daemon, since its program forwards on with the tables that it has: a daemon that is restarted, or has died,
//! must not take healthy VIPs off the net. But nobody checks backends for it any more, so that this is for a while only, and not at all
//! once the program is on no interface.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures_util::StreamExt as _;

use super::kernel::{Place, Routes};
use crate::{
    api::client::Client,
    config::{Announcing, Paths},
    dataplane::bpf,
    interfaces,
};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// What is to be done after a look.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    /// The daemon answers: the routes are its own affair.
    Leave,
    /// It does not, and the routes stay as they are.
    Hold,
    /// The routes go: it has been away for too long.
    Expired,
    /// The routes go: there is no daemon, and no program either.
    NotAttached,
}

/// What is remembered from look to look.
#[derive(Clone, Copy, Debug, Default)]
struct Watch {
    away_since: Option<Instant>,
}

impl Watch {
    /// Judges what is seen `now`. Whether the program is attached is asked only where it matters.
    async fn judge(
        &mut self,
        answers: bool,
        is_attached: impl AsyncFnOnce() -> bool,
        hold: Option<Duration>,
        now: Instant,
    ) -> Verdict {
        if answers {
            self.away_since = None;
            return Verdict::Leave;
        }
        let since = *self.away_since.get_or_insert(now);
        if !is_attached().await {
            return Verdict::NotAttached;
        }
        match hold {
            Some(hold) if now.saturating_duration_since(since) >= hold => Verdict::Expired,
            _ => Verdict::Hold,
        }
    }
}

/// Watches the daemon of a configuration until `end`.
///
/// # Errors
/// The kernel gives no netlink socket.
pub async fn run(
    config: &Path,
    paths: &Paths,
    mut announcing: Announcing,
    end: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let client = Client::new(&paths.api_socket);
    let mut watch = Watch::default();
    let mut before = Verdict::Leave;
    let mut end = std::pin::pin!(end);
    tracing::info!(config = %config.display(), table = announcing.table, "watching the daemon");
    loop {
        let answers = client.generation().await.is_ok();
        if !answers && before == Verdict::Leave {
            // The daemon may have read another configuration since.
            announcing = Announcing::of_file(config).unwrap_or(announcing);
        }
        let attached = async || is_attached(&paths.pin_path).await;
        let hold = announcing.dead_daemon_hold;
        let verdict = watch.judge(answers, attached, hold, Instant::now()).await;
        tell(before, verdict, hold);
        before = verdict;
        if matches!(verdict, Verdict::Expired | Verdict::NotAttached) {
            // Again at every look: a daemon that died meanwhile may have left some.
            match withdraw(&announcing).await {
                Ok(0) => {}
                Ok(routes) => tracing::warn!(routes, "routes of VIPs withdrawn"),
                Err(error) => tracing::error!(
                    error = format!("{error:#}"),
                    "routes of VIPs cannot be withdrawn; tried again"
                ),
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = &mut end => return Ok(()),
        }
    }
}

fn tell(before: Verdict, now: Verdict, hold: Option<Duration>) {
    if before == now {
        return;
    }
    match now {
        Verdict::Leave => tracing::info!("the daemon answers again"),
        Verdict::Hold => tracing::warn!(
            seconds = hold.map(|hold| hold.as_secs_f64()),
            "the daemon does not answer; its program forwards, and its routes stay for so long"
        ),
        Verdict::Expired => {
            tracing::error!("the daemon has been away for too long: its routes are withdrawn");
        }
        Verdict::NotAttached => {
            tracing::error!("no daemon, and no program on any interface: its routes are withdrawn");
        }
    }
}

/// Takes the routes of VIPs away. Returns how many there were.
///
/// # Errors
/// The kernel refuses.
pub async fn withdraw(announcing: &Announcing) -> anyhow::Result<usize> {
    let routes = Routes::open(Place::from(announcing)).context("opening a netlink socket")?;
    let table = announcing.table;
    let cleared = routes.clear().await;
    cleared.with_context(|| format!("withdrawing the routes of table {table}"))
}

/// Whether a program that is pinned below `pin_path` is on some interface.
async fn is_attached(pin_path: &Path) -> bool {
    let linked: Vec<String> = bpf::linked_of_any_layout(pin_path).unwrap_or_default();
    let attached = futures_util::stream::iter(linked)
        .any(async |name: String| interfaces::attached(&name).await.is_ok());
    attached.await
}

/// Where the daemon of a configuration is, and how it announces.
///
/// # Errors
/// The file cannot be read, is not TOML, or has wrong paths.
pub fn of_file(config: &Path) -> Result<(Paths, Announcing), crate::config::Errors> {
    Ok((crate::config::paths(config)?, Announcing::of_file(config)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: Duration = Duration::from_mins(10);

    async fn judge(
        watch: &mut Watch,
        seen: (bool, bool),
        hold: Option<Duration>,
        now: Instant,
    ) -> Verdict {
        let (answers, is_attached) = seen;
        watch.judge(answers, async || is_attached, hold, now).await
    }

    #[tokio::test]
    async fn a_dead_daemon_is_waited_for_and_a_missing_program_is_not() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut watch = Watch::default();
        let (alive, dead, gone) = ((true, true), (false, true), (false, false));
        let hold = Some(HOLD);
        assert_eq!(judge(&mut watch, alive, hold, at(0)).await, Verdict::Leave);
        assert_eq!(judge(&mut watch, dead, hold, at(1)).await, Verdict::Hold);
        assert_eq!(judge(&mut watch, dead, hold, at(600)).await, Verdict::Hold);
        assert_eq!(
            judge(&mut watch, dead, hold, at(601)).await,
            Verdict::Expired
        );
        // Back for a moment: the time begins again.
        assert_eq!(
            judge(&mut watch, alive, hold, at(602)).await,
            Verdict::Leave
        );
        assert_eq!(judge(&mut watch, dead, hold, at(1201)).await, Verdict::Hold);
        assert_eq!(
            judge(&mut watch, gone, hold, at(1202)).await,
            Verdict::NotAttached
        );
        // For ever, if so told.
        assert_eq!(
            judge(&mut watch, dead, None, at(90_000)).await,
            Verdict::Hold
        );
        assert_eq!(
            judge(&mut watch, gone, None, at(90_001)).await,
            Verdict::NotAttached
        );
    }
}
