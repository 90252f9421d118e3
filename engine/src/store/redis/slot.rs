//! The slot of a cluster in which a key is.

/// How many slots a cluster has.
const SLOTS: u16 = 16_384;

/// The slot of all keys with this hash tag, `{tag}`: CRC16 (XMODEM) modulo the number of slots, as the specification
/// of Redis Cluster has it.
pub(super) fn of_tag(tag: &str) -> u16 {
    let crc = tag.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            }
        })
    });
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slot_is_the_one_that_redis_names() {
        // The check value of the CRC, and CLUSTER KEYSLOT's answers.
        assert_eq!(of_tag("123456789"), 0x31C3);
        assert_eq!(of_tag("orders"), 105);
        assert_eq!(of_tag("foo"), 12_182);
    }
}
