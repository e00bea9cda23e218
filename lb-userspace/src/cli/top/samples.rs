//! Sampled packets, as the daemon tells them while somebody listens (`GET /v1/packets`).

use std::time::Duration;

use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep, timeout_at},
};

use crate::api::{
    PacketFilter, PacketSeen,
    client::{Client, ClientError},
};

/// How many samples may wait to be counted.
const WAITING: usize = 4096;

/// How many samples a second the daemon tells at most: above what is wanted, for what comes in bursts.
const RATE: u32 = 4000;

/// How long is waited before the daemon is asked again.
const AGAIN: Duration = Duration::from_secs(2);

/// Samples that come close together are handed on together.
const TOGETHER: Duration = Duration::from_millis(100);

/// What comes of a subscription.
#[derive(Debug)]
pub(super) enum Sampled {
    /// From now on there are some, be it none.
    Open,
    Packets(Vec<PacketSeen>),
    /// There are none, and why.
    Unavailable(String),
}

/// Which packets are sampled.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Wanted {
    /// One of so many.
    pub(super) sample: u32,
    /// Only of this VIP.
    pub(super) vip: Option<String>,
}

/// Samples for as long as it lives.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) wanted: Wanted,
    pub(super) samples: mpsc::Receiver<Sampled>,
    task: JoinHandle<()>,
}

impl Subscription {
    /// Must run within tokio.
    pub(super) fn open(client: Client, wanted: Wanted) -> Self {
        let (sender, samples) = mpsc::channel(WAITING);
        let asked = wanted.clone();
        let task = tokio::spawn(async move {
            while !sender.is_closed() {
                let why = match listen(&client, &asked, &sender).await {
                    Ok(()) => "the daemon has ended the stream of samples".to_owned(),
                    Err(ClientError::Refused { status: 404, .. }) => {
                        "this daemon does not sample packets".to_owned()
                    }
                    Err(error) => error.to_string(),
                };
                if sender.send(Sampled::Unavailable(why)).await.is_err() {
                    return;
                }
                sleep(AGAIN).await;
            }
        });
        Self {
            wanted,
            samples,
            task,
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(
    client: &Client,
    wanted: &Wanted,
    sender: &mpsc::Sender<Sampled>,
) -> Result<(), ClientError> {
    let filter = PacketFilter {
        sample: Some(wanted.sample),
        vip: wanted.vip.clone(),
        reason: None,
        rate: Some(RATE),
    };
    let mut lines = client.packets(&filter).await?;
    if sender.send(Sampled::Open).await.is_err() {
        return Ok(());
    }
    let mut batch = Vec::new();
    let mut is_open = true;
    while is_open {
        let deadline = Instant::now() + TOGETHER;
        while let Ok(line) = timeout_at(deadline, lines.next()).await {
            let Some(packet) = line? else {
                is_open = false;
                break;
            };
            batch.push(packet);
        }
        let packets = std::mem::take(&mut batch);
        if sender.send(Sampled::Packets(packets)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}
