//! Segments and the cables to them: a bridge, and a veth pair for each host on it.

use anyhow::{Context as _, Result};

use super::{exec, frame, namespace::Namespace, observer::Observer, recorder::Recorder};

/// A layer-2 segment: a bridge in a host that acts as the switch.
#[derive(Debug, Clone)]
pub struct Segment {
    switch: Namespace,
    bridge: String,
}

/// A host's end of a cable.
#[derive(Debug, Clone)]
pub struct Nic {
    /// The host.
    pub host: Namespace,
    /// The interface's name in the host.
    pub name: String,
    switch: Namespace,
    port: String,
}

impl Segment {
    /// Makes a bridge in `switch`.
    pub fn create(switch: &Namespace, bridge: &str) -> Result<Self> {
        switch.ip(&format!("link add {bridge} type bridge mcast_snooping 0"))?;
        switch.ip(&format!("link set {bridge} up"))?;
        // A switch reads no IP headers; the kernel's would drop frames whose headers contradict themselves.
        let off = "for key in /proc/sys/net/bridge/bridge-nf-call-*; do [ ! -e $key ] || echo 0 >$key; done";
        switch.run("sh", ["-c", off])?;
        Ok(Self {
            switch: switch.clone(),
            bridge: bridge.to_owned(),
        })
    }

    /// Wires a host to the segment and gives it addresses (with prefix lengths), usable at once.
    pub fn plug(&self, host: &Namespace, nic: &str, addresses: &[String]) -> Result<Nic> {
        // An interface's name holds 15 characters.
        let port: String = format!("{}-{nic}", host.host()).chars().take(15).collect();
        let (switch, there) = (&self.switch, host.name());
        switch.ip(&format!(
            "link add {port} type veth peer name {nic} netns {there}"
        ))?;
        // A veth leaves the checksums of what its host sends open, and nobody after an XDP program closes them.
        host.run("ethtool", ["-K", nic, "tx", "off"])?;
        for address in addresses {
            let flags = if address.contains(':') { "nodad" } else { "" };
            host.ip(&format!("address add {address} dev {nic} {flags}"))?;
        }
        host.ip(&format!("link set {nic} up"))?;
        switch.ip(&format!("link set {port} master {} up", self.bridge))?;
        Ok(Nic {
            host: host.clone(),
            name: nic.to_owned(),
            switch: switch.clone(),
            port,
        })
    }
}

impl Nic {
    /// Puts a counting `XDP_PASS` program on the far end of the cable.
    ///
    /// A host whose own XDP program sends (`XDP_TX`, or a redirect to this interface) needs one there: a veth delivers
    /// such frames only to a peer that runs XDP itself, and drops them without a word otherwise.
    pub fn observe(&self) -> Result<Observer> {
        let folder = self.host.lab().folder().join("bpf");
        let observer = exec::gated(|| Observer::load(&folder, &self.port))?;
        let pin = observer.program_pin();
        self.switch
            .ip(&format!(
                "link set dev {} xdpdrv pinned {}",
                self.port,
                pin.display()
            ))
            .with_context(|| format!("attach the observer to {}", self.port))?;
        Ok(observer)
    }

    /// Records what arrives at the host's end of the cable, from now on.
    pub fn record(&self) -> Result<Recorder> {
        let folder = self.host.lab().folder().join("bpf");
        let recorder = exec::gated(|| Recorder::load(&folder, &self.port))?;
        let pin = recorder.program_pin();
        self.host
            .ip(&format!(
                "link set dev {} xdpdrv pinned {}",
                self.name,
                pin.display()
            ))
            .with_context(|| format!("attach the recorder to {}", self.port))?;
        Ok(recorder)
    }

    /// Keeps frames for unknown hosts away from this one, as a NIC's own filter does.
    ///
    /// A bridge floods what is for a host whose port is down. An XDP program on a veth sees such frames, and weir balances
    /// whatever it sees: the node that is gone would go on being served by the others.
    pub fn filter_unknown(&self) -> Result<()> {
        let off = ["link", "set", "dev", &self.port, "flood", "off"];
        self.switch.run("bridge", off).map(drop)
    }

    /// Makes tags travel in the frames of this cable, as on a wire.
    ///
    /// The bridge takes the outer tag off and notes it beside the frame; a veth would hand the note on, which no XDP
    /// program sees.
    pub fn carry_tags(&self) -> Result<()> {
        let off =
            |nic| ["-K", nic, "txvlan", "off", "tx-vlan-stag-hw-insert", "off"].map(str::to_owned);
        self.switch.run("ethtool", off(&self.port))?;
        self.host.run("ethtool", off(&self.name)).map(drop)
    }

    /// Sends a frame out of the interface, as it is.
    pub fn send(&self, bytes: &[u8]) -> Result<()> {
        self.host.inside(|| frame::send(&self.name, bytes))
    }

    /// Returns the name of the far end of the cable, in the switch.
    #[must_use]
    pub fn port(&self) -> &str {
        &self.port
    }

    /// Returns the MAC address as it stands in frames.
    pub fn mac_bytes(&self) -> Result<[u8; 6]> {
        let text = self.mac()?;
        let bytes: Result<Vec<_>, _> = text
            .split(':')
            .map(|byte| u8::from_str_radix(byte, 16))
            .collect();
        bytes
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .with_context(|| format!("{text} is no MAC address"))
    }

    /// Returns the MAC address.
    pub fn mac(&self) -> Result<String> {
        let links: serde_json::Value =
            serde_json::from_str(&self.host.ip(&format!("-j link show dev {}", self.name))?)?;
        let mac = links
            .pointer("/0/address")
            .and_then(serde_json::Value::as_str);
        mac.map(str::to_owned)
            .with_context(|| format!("{} has no MAC address", self.name))
    }
}
