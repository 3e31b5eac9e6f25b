//! Ancillary data: its JSON form, and the control buffers of the kernel.

use sockbroker_proto::ancillary::{AncillaryData, AncillaryItem};
use sockbroker_proto::bytes::Bytes;
use sockbroker_sys::control::{OutgoingControl, cmsg_len, cmsg_space, encode_control, items};

/// An item as level, type and data.
type KernelItem<'a> = (i32, i32, &'a [u8]);

/// Decodes the bytes as a list of items in JSON, and as a control buffer.
pub fn body(data: &[u8]) {
    if let Ok(list) = serde_json::from_slice::<Vec<AncillaryItem>>(data) {
        let text = serde_json::to_string(&list).unwrap_or_default();
        let again = serde_json::from_str::<Vec<AncillaryItem>>(&text).ok();
        assert_eq!(again, Some(list.clone()), "{text}");
        check_round_trip(&list.iter().filter_map(kernel_item).collect::<Vec<_>>());
    }
    check_buffer(data);
}

/// Returns what the broker passes to the kernel. Descriptors are passed separately.
fn kernel_item(AncillaryItem(level, kind, data): &AncillaryItem) -> Option<KernelItem<'_>> {
    let AncillaryData::Bytes(Bytes::Inline(data)) = data else { return None };
    Some((i32::try_from(level.0).ok()?, i32::try_from(kind.0).ok()?, data))
}

/// Checks that decoding ends, and that the items are within the buffer and do not overlap.
fn check_buffer(control: &[u8]) {
    let header = cmsg_len(0).unwrap_or_default();
    let mut found = Vec::new();
    let mut end = 0;
    for item in items(control) {
        assert!(item.data.start >= end + header, "items overlap");
        assert!(item.data.start <= item.data.end, "an item has a negative length");
        end = item.data.end;
        found.push((item.level, item.kind, &control[item.data]));
    }
    check_round_trip(&found);
}

/// Checks that encoded items are decoded again, and that the length is that of `CMSG_SPACE`.
fn check_round_trip(list: &[KernelItem<'_>]) {
    let outgoing: Vec<_> = list
        .iter()
        .map(|&(level, kind, data)| OutgoingControl::Data { level, kind, data })
        .collect();
    let control = encode_control(&outgoing);
    let space: usize = list.iter().filter_map(|(_, _, data)| cmsg_space(data.len())).sum();
    assert_eq!(control.len(), space, "the length differs from CMSG_SPACE");
    let found: Vec<_> =
        items(&control).map(|item| (item.level, item.kind, &control[item.data])).collect();
    assert_eq!(found, list, "the decoded items differ from the encoded ones");
}
