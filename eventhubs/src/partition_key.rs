//! Which partition a key belongs to: the hash that the service and every SDK agree on.
//!
//! Jenkins' lookup3 (`hashlittle2`, both seeds 0), as in .NET's
//! [`PartitionResolver`](https://github.com/Azure/azure-sdk-for-net/blob/main/sdk/eventhub/Azure.Messaging.EventHubs/src/Core/PartitionResolver.cs).

/// The index, below `partitions`, of the partition that `key` belongs to.
///
/// The order of a key's events is only kept while the number of partitions stays the same.
///
/// # Panics
///
/// When `partitions` is 0: no hub has none.
pub fn partition_of(key: &str, partitions: u32) -> u32 {
    (i64::from(hash(key)) % i64::from(partitions)).unsigned_abs() as u32
}

/// The service's 16-bit hash of a partition key.
pub fn hash(key: &str) -> i16 {
    let (c, b) = lookup3(key.as_bytes());
    (c ^ b) as i16
}

fn lookup3(data: &[u8]) -> (u32, u32) {
    let start = 0xDEAD_BEEF_u32.wrapping_add(data.len() as u32);
    let (mut a, mut b, mut c) = (start, start, start);
    let mut blocks = data.chunks(12).peekable();
    while let Some(block) = blocks.next() {
        // Bytes that a short last block lacks count as zero.
        let mut padded = [0; 12];
        padded[..block.len()].copy_from_slice(block);
        let word =
            |i: usize| u32::from_le_bytes([padded[i], padded[i + 1], padded[i + 2], padded[i + 3]]);
        a = a.wrapping_add(word(0));
        b = b.wrapping_add(word(4));
        c = c.wrapping_add(word(8));
        let mixed = if blocks.peek().is_some() { mix(a, b, c) } else { finish(a, b, c) };
        (a, b, c) = mixed;
    }
    (c, b)
}

fn mix(mut a: u32, mut b: u32, mut c: u32) -> (u32, u32, u32) {
    a = a.wrapping_sub(c) ^ c.rotate_left(4);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(6);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(8);
    b = b.wrapping_add(a);
    a = a.wrapping_sub(c) ^ c.rotate_left(16);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(19);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(4);
    b = b.wrapping_add(a);
    (a, b, c)
}

fn finish(mut a: u32, mut b: u32, mut c: u32) -> (u32, u32, u32) {
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    c = (c ^ b).wrapping_sub(b.rotate_left(24));
    (a, b, c)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the tests of .NET's `PartitionResolver`.
    const VECTORS: [(&str, i16); 12] = [
        ("7", -15263),
        ("131", 30562),
        ("7149583486996073602", 12977),
        ("FWfAT", -22341),
        ("sOdeEAsyQoEuEFPGerWO", -6503),
        (
            "FAyAIctPeCgmiwLKbJcyswoHglHVjQdvtBowLACDNORsYvOcLddNJYDmhAVkbyLOrHTKLneMNcbgWVlasVywOByANjs",
            5226,
        ),
        (
            "1XYM6!(7(lF5wq4k4m*e$Nc!1ezLJv*1YK1Y-C^*&B$O)lq^iUkG(TNzXG;Zi#z2Og*Qq0#^*k):vXh$3,C7We7%W0meJ;b3,rQCg^J;^twXgs5E$$hWKxqp",
            23950,
        ),
        (
            "E(x;RRIaQcJs*P;D&jTPau-4K04oqr:lF6Z):ERpo&;9040qyV@G1_c9mgOs-8_8/10Fwa-7b7-yP!T-!IH&968)FWuI;(^g$2fN;)HJ^^yTn:",
            -29304,
        ),
        ("!c*_!I@1^c", 15372),
        ("p4*!jioeO/z-!-;w:dh", -3104),
        ("$0cb", 26269),
        ("-4189260826195535198", 453),
    ];

    #[test]
    fn every_vector_of_the_dotnet_tests_hashes_alike() {
        for (key, expected) in VECTORS {
            assert_eq!(hash(key), expected, "{key}");
        }
    }

    #[test]
    fn a_negative_hash_still_names_a_partition() {
        for partitions in 1..=32 {
            for key in ["7", "FWfAT", "", "$0cb"] {
                assert!(partition_of(key, partitions) < partitions);
            }
        }
        assert_eq!(partition_of("7", 4), 3);
    }
}
