//! What drivers tell: offloads, queues, rings (`ethtool`), and XDP (`netdev`), all by generic netlink.

use ::ethtool::{
    EthtoolAttr, EthtoolChannelAttr, EthtoolError, EthtoolFeatureAttr, EthtoolFeatureBit,
    EthtoolHandle, EthtoolMessage, EthtoolRingAttr,
};
use anyhow::Context as _;
use futures_util::{Stream, StreamExt as _};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use rtnetlink::packet_core::{
    DecodeError, DefaultNla, Emitable, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload, Nla as _,
    NlasIterator, Parseable as _, ParseableParametrized,
};

use crate::doctor::facts::{Nic, Offload, Offloads, Queues, XdpFeatures};

/// Asks about every interface. What a driver does not tell stays unknown.
pub(super) async fn ask(nics: impl Iterator<Item = &mut Nic>) -> anyhow::Result<()> {
    let (connection, mut handle, _) =
        ::ethtool::new_connection().context("opening a generic netlink socket")?;
    let connection = tokio::spawn(connection);
    for nic in nics.filter(|nic| nic.is_ethernet) {
        let name = Some(nic.name.as_str());
        let features = handle.feature().get(name).execute().await;
        nic.offloads = offloads(&answers(features).await);
        let channels = handle.channel().get(name).execute().await;
        nic.queues = queues(&answers(channels).await);
        let rings = handle.ring().get(name).execute().await;
        nic.ring = ring(&answers(rings).await);
        nic.can = xdp_features(&mut handle, nic.index).await;
    }
    connection.abort();
    Ok(())
}

/// What was answered; nothing where the driver does not know the question.
async fn answers(
    stream: Result<
        impl Stream<Item = Result<GenlMessage<EthtoolMessage>, EthtoolError>>,
        EthtoolError,
    >,
) -> Vec<EthtoolAttr> {
    let Ok(stream) = stream else {
        return Vec::new();
    };
    let messages: Vec<_> = stream.collect().await;
    let messages = messages.into_iter().flatten();
    messages.flat_map(|message| message.payload.nlas).collect()
}

fn offloads(told: &[EthtoolAttr]) -> Offloads {
    let (mut known, mut active, mut fixed) = (&[][..], &[][..], &[][..]);
    for attribute in told {
        match attribute {
            EthtoolAttr::Feature(EthtoolFeatureAttr::Hw(bits)) => known = bits,
            EthtoolAttr::Feature(EthtoolFeatureAttr::Active(bits)) => active = bits,
            EthtoolAttr::Feature(EthtoolFeatureAttr::NoChange(bits)) => fixed = bits,
            _ => {}
        }
    }
    let holds = |bits: &[EthtoolFeatureBit], name: &str| {
        bits.iter().any(|bit| bit.name == name && bit.value)
    };
    let of = |name: &str| {
        let is_on = holds(active, name);
        let can_change = holds(known, name) && !holds(fixed, name);
        (is_on || can_change).then_some(Offload {
            is_on,
            is_fixed: !can_change,
        })
    };
    Offloads {
        lro: of("rx-lro"),
        gro_hw: of("rx-gro-hw"),
        vlan_rx: of("rx-vlan-hw-parse"),
    }
}

fn queues(told: &[EthtoolAttr]) -> Option<Queues> {
    let mut queues = Queues::default();
    let (mut combined, mut max_combined) = (0, 0);
    for attribute in told {
        let EthtoolAttr::Channel(attribute) = attribute else {
            continue;
        };
        match attribute {
            EthtoolChannelAttr::RxCount(count) => queues.rx = *count,
            EthtoolChannelAttr::TxCount(count) => queues.tx = *count,
            EthtoolChannelAttr::CombinedCount(count) => combined = *count,
            EthtoolChannelAttr::RxMax(count) => queues.max_rx = *count,
            EthtoolChannelAttr::TxMax(count) => queues.max_tx = *count,
            EthtoolChannelAttr::CombinedMax(count) => max_combined = *count,
            _ => {}
        }
    }
    queues.is_combined = combined > 0;
    if queues.is_combined {
        // A driver that has both counts dedicated queues beside the combined ones.
        queues.rx += combined;
        queues.tx += combined;
        (queues.max_rx, queues.max_tx) = (max_combined, max_combined);
    }
    (queues.rx > 0 && queues.tx > 0).then_some(queues)
}

fn ring(told: &[EthtoolAttr]) -> Option<(u32, u32)> {
    let (mut size, mut most) = (None, None);
    for attribute in told {
        match attribute {
            EthtoolAttr::Ring(EthtoolRingAttr::Rx(count)) => size = Some(*count),
            EthtoolAttr::Ring(EthtoolRingAttr::RxMax(count)) => most = Some(*count),
            _ => {}
        }
    }
    Some((size?, most?))
}

/// A message of the family `netdev` (linux/netdev.h, since Linux 6.3).
#[derive(Clone, Debug)]
struct Netdev(Vec<DefaultNla>);

impl Netdev {
    const DEV_GET: u8 = 1;
    const IFINDEX: u16 = 1;
    const XDP_FEATURES: u16 = 3;
    /// Bits of `enum netdev_xdp_act`.
    const BASIC: u64 = 1;
    const NDO_XMIT: u64 = 4;
    const RX_SG: u64 = 32;

    fn xdp_features(&self) -> Option<XdpFeatures> {
        let found = self.0.iter().find(|nla| nla.kind() == Self::XDP_FEATURES)?;
        let mut bytes = [0; 8];
        (found.value_len() == bytes.len()).then(|| found.emit_value(&mut bytes))?;
        let bits = u64::from_ne_bytes(bytes);
        Some(XdpFeatures {
            basic: bits & Self::BASIC != 0,
            transmit: bits & Self::NDO_XMIT != 0,
            scatter: bits & Self::RX_SG != 0,
        })
    }
}

impl GenlFamily for Netdev {
    fn family_name() -> &'static str {
        "netdev"
    }

    fn command(&self) -> u8 {
        Self::DEV_GET
    }

    fn version(&self) -> u8 {
        1
    }
}

impl Emitable for Netdev {
    fn buffer_len(&self) -> usize {
        self.0.as_slice().buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.0.as_slice().emit(buffer);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Netdev {
    fn parse_with_param(buffer: &[u8], _header: GenlHeader) -> Result<Self, DecodeError> {
        let nlas = NlasIterator::new(buffer).map(|nla| DefaultNla::parse(&nla?));
        Ok(Self(nlas.collect::<Result<_, _>>()?))
    }
}

async fn xdp_features(handle: &mut EthtoolHandle, index: u32) -> Option<XdpFeatures> {
    let asked = DefaultNla::new(Netdev::IFINDEX, index.to_ne_bytes().to_vec());
    let message = GenlMessage::from_payload(Netdev(vec![asked]));
    let mut message = NetlinkMessage::from(message);
    message.header.flags = NLM_F_REQUEST;
    // Kernels before 6.3 do not know the family.
    let mut answers = Box::pin(handle.handle.request(message).await.ok()?);
    while let Some(Ok(answer)) = answers.next().await {
        if let NetlinkPayload::InnerMessage(told) = answer.payload {
            return told.payload.xdp_features();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(names: &[&str]) -> Vec<EthtoolFeatureBit> {
        let bit = |name: &&str| EthtoolFeatureBit {
            index: 0,
            name: (*name).to_owned(),
            value: true,
        };
        names.iter().map(bit).collect()
    }

    #[test]
    fn offloads_are_on_off_fixed_or_unknown() {
        let told = [
            EthtoolFeatureAttr::Hw(bits(&["rx-gro-hw", "rx-lro"])),
            EthtoolFeatureAttr::Active(bits(&["rx-lro", "rx-vlan-hw-parse"])),
            EthtoolFeatureAttr::NoChange(Vec::new()),
        ];
        let found = offloads(&told.map(EthtoolAttr::Feature));
        let offload = |is_on, is_fixed| Some(Offload { is_on, is_fixed });
        assert_eq!(found.lro, offload(true, false));
        assert_eq!(found.gro_hw, offload(false, false));
        assert_eq!(found.vlan_rx, offload(true, true));
        assert_eq!(offloads(&[]), Offloads::default());
    }

    #[test]
    fn queues_are_counted_combined_or_apart() {
        use EthtoolChannelAttr as A;
        let of = |told: &[A]| {
            let told: Vec<_> = told.iter().cloned().map(EthtoolAttr::Channel).collect();
            queues(&told).map(|q| (q.rx, q.tx, q.max_rx, q.is_combined))
        };
        assert_eq!(
            of(&[A::CombinedCount(2), A::CombinedMax(8)]),
            Some((2, 2, 8, true))
        );
        let apart = [A::RxCount(1), A::TxCount(1), A::RxMax(2), A::TxMax(2)];
        assert_eq!(of(&apart), Some((1, 1, 2, false)));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn what_a_driver_can_do_is_read_from_bits() {
        let told = |bits: u64| {
            let nla = DefaultNla::new(Netdev::XDP_FEATURES, bits.to_ne_bytes().to_vec());
            Netdev(vec![nla]).xdp_features()
        };
        let all = XdpFeatures {
            basic: true,
            transmit: true,
            scatter: true,
        };
        assert_eq!(told(0x7f), Some(all));
        assert_eq!(told(0), Some(XdpFeatures::default()));
        assert_eq!(Netdev(Vec::new()).xdp_features(), None);
    }
}
