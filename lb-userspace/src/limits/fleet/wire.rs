//! What goes to the script and comes back: numbers only, in microseconds and thousandths of cells per second.

use std::time::Duration;

use super::{Key, Rate};

/// What a node asks in one turn.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
    /// The node: a number drawn when it started, under 2^48.
    pub node: u64,
    /// Counts the node's requests, so that a late one cannot undo a later one.
    pub sequence: u64,
    /// The largest serial that the node has seen, to know a Redis that has forgotten.
    pub serial: u64,
    /// For how long the node counts as alive.
    pub lease: Duration,
    /// After so long without any call Redis takes its leases for incomplete.
    pub gap: Duration,
    /// For so long it then waits for all nodes to tell theirs.
    pub learn: Duration,
    /// For so long Redis keeps what it knows, if nobody asks.
    pub keep: Duration,
    /// The limits.
    pub asks: Vec<Ask>,
}

/// What a node asks of one limit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ask {
    /// The limit.
    pub key: Key,
    /// What the fleet may let through.
    pub limit: Rate,
    /// What came here lately, let through or not.
    pub want: Rate,
    /// The most that the data plane may let through until it learns of the answer.
    pub held: Rate,
    /// What it is to let through until then.
    pub has: Rate,
    /// Whether that is a lease.
    pub is_lease: bool,
    /// How long the new lease lasts.
    pub lease: Duration,
}

/// What Redis answers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reply {
    /// Counts the calls of all nodes.
    pub serial: u64,
    /// How many nodes are alive, this one among them.
    pub live: u32,
    /// Whether Redis is waiting for all nodes to tell their leases: `live` may be too low.
    pub is_learning: bool,
    /// To each [`Ask`], in order.
    pub answers: Vec<Answer>,
}

/// What Redis answers to one [`Ask`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Answer {
    /// What the node may let through.
    pub rate: Rate,
    /// Whether it is a lease; else the node may go on with so much of what it takes for its share.
    pub is_lease: bool,
}

/// An answer that the script does not give.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Nonsense {
    /// A later request of this node came first.
    #[error("the request was overtaken by a later one of this node")]
    Overtaken,
    /// Not the numbers of a reply to this request.
    #[error(
        "the script answered something else than its numbers; another program may use the same keys"
    )]
    Malformed,
}

impl Request {
    /// The script's KEYS. All in one slot of a Redis cluster.
    #[must_use]
    pub fn keys(&self, fleet: &str) -> Vec<String> {
        // The number is that of the values' format.
        let prefix = format!("weir:{{{fleet}}}:1");
        let limits = self.asks.iter();
        let limits = limits.map(|ask| format!("{prefix}:limit:{}", ask.key));
        std::iter::once(format!("{prefix}:nodes"))
            .chain(limits)
            .collect()
    }

    /// The script's ARGV.
    #[must_use]
    pub fn arguments(&self) -> Vec<u64> {
        let head = [
            self.node,
            self.sequence,
            self.serial,
            micros(self.lease),
            micros(self.gap),
            micros(self.learn),
            u64::try_from(self.keep.as_millis()).unwrap_or(u64::MAX),
        ];
        let limits = self.asks.iter().flat_map(|ask| {
            [
                ask.limit.thousandths(),
                ask.want.thousandths(),
                ask.held.thousandths(),
                ask.has.thousandths(),
                u64::from(ask.is_lease),
                micros(ask.lease),
            ]
        });
        head.into_iter().chain(limits).collect()
    }

    /// Reads what the script returned.
    ///
    /// # Errors
    /// It is no reply to this request.
    pub fn read(&self, values: &[i64]) -> Result<Reply, Nonsense> {
        let &[serial, live, is_learning, ref answers @ ..] = values else {
            return Err(match values {
                [_] => Nonsense::Overtaken,
                _ => Nonsense::Malformed,
            });
        };
        if answers.len() != self.asks.len() || !matches!(is_learning, 0 | 1) {
            return Err(Nonsense::Malformed);
        }
        let answers = self.asks.iter().zip(answers).map(|(ask, &value)| {
            let (rate, is_lease) = if value < 0 {
                (-1 - value, false)
            } else {
                (value, true)
            };
            let rate = Rate::from_thousandths(u64::try_from(rate).ok()?).min(ask.limit);
            Some(Answer { rate, is_lease })
        });
        let reply = || {
            Some(Reply {
                serial: u64::try_from(serial).ok()?,
                live: u32::try_from(live).ok().filter(|live| *live > 0)?,
                is_learning: is_learning == 1,
                answers: answers.collect::<Option<_>>()?,
            })
        };
        reply().ok_or(Nonsense::Malformed)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        Request {
            node: 1,
            sequence: 2,
            serial: 3,
            lease: Duration::from_micros(4),
            gap: Duration::from_micros(5),
            learn: Duration::from_micros(6),
            keep: Duration::from_millis(7),
            asks: vec![Ask {
                key: "web/packets".into(),
                limit: Rate::per_second(8),
                want: Rate::from_thousandths(9),
                held: Rate::from_thousandths(10),
                has: Rate::from_thousandths(11),
                is_lease: true,
                lease: Duration::from_micros(12),
            }],
        }
    }

    #[test]
    fn asks_in_the_order_of_the_script() {
        assert_eq!(
            request().arguments(),
            [1, 2, 3, 4, 5, 6, 7, 8000, 9, 10, 11, 1, 12]
        );
        assert_eq!(
            request().keys("edge"),
            ["weir:{edge}:1:nodes", "weir:{edge}:1:limit:web/packets"]
        );
    }

    #[test]
    fn reads_leases_and_what_is_none_and_never_more_than_the_limit() {
        for (value, thousandths, is_lease) in [
            (0, 0, true),
            (-1, 0, false),
            (5, 5, true),
            (-6, 5, false),
            (8001, 8000, true),
            (-9000, 8000, false),
        ] {
            let reply = request().read(&[7, 2, 1, value]).unwrap();
            let rate = Rate::from_thousandths(thousandths);
            assert_eq!(reply.answers, [Answer { rate, is_lease }], "{value}");
            assert_eq!((reply.serial, reply.live, reply.is_learning), (7, 2, true));
        }
    }

    #[test]
    fn refuses_all_else() {
        assert_eq!(request().read(&[7]), Err(Nonsense::Overtaken));
        for values in [
            &[][..],
            &[7, 2],
            &[7, 2, 0],
            &[7, 2, 0, 1, 1],
            &[7, 0, 0, 1],
            &[7, -1, 0, 1],
            &[-7, 1, 0, 1],
            &[7, 1, 2, 1],
            &[7, i64::MAX, 0, 1],
        ] {
            assert_eq!(
                request().read(values),
                Err(Nonsense::Malformed),
                "{values:?}"
            );
        }
    }
}
