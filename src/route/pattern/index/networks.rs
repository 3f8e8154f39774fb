//! Many networks, and which of them an address lies in.

use std::net::IpAddr;

use crate::route::pattern::{Cidr, wanted::QuickMap};

#[derive(Debug, Default)]
pub(super) struct Networks {
    /// The kinds that there are: of IPv4 or not, and how many bits are kept.
    kinds: Vec<(bool, u8)>,
    /// By kind, and the bits that are kept.
    to: QuickMap<(usize, u64, u64), Vec<u32>>,
}

impl Networks {
    pub(super) fn add(&mut self, cidr: Cidr, to: u32) {
        let of = (cidr.network.is_ipv4(), cidr.bits);
        let known = self.kinds.iter().position(|known| *known == of);
        let kind = known.unwrap_or_else(|| {
            self.kinds.push(of);
            self.kinds.len() - 1
        });
        self.to.entry(key(kind, cidr.bits, cidr.network)).or_default().push(to);
    }

    /// Those that the address lies in, if the text is one.
    pub(super) fn find(&self, text: &str, to: &mut dyn FnMut(u32)) {
        if self.kinds.is_empty() {
            return;
        }
        let Ok(address) = text.parse::<IpAddr>() else { return };
        for (kind, (is_ipv4, bits)) in self.kinds.iter().enumerate() {
            if *is_ipv4 == address.is_ipv4() {
                let found = self.to.get(&key(kind, *bits, address));
                found.into_iter().flatten().for_each(|at| to(*at));
            }
        }
    }
}

fn key(kind: usize, bits: u8, address: IpAddr) -> (usize, u64, u64) {
    let (address, width) = match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    let kept = address.checked_shr(width - u32::from(bits)).unwrap_or(0);
    (kind, (kept >> 64) as u64, kept as u64)
}
