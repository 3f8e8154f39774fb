//! The way to a place in JSON, strictly: what is not as the path says may hold what it was to find.

use serde_json::Value as Json;

use crate::transform::path::Part;

/// What becomes of a value that has been seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It stays where it is.
    Stays,
    /// It is taken out: a member of an object leaves it, an item of a list becomes null so that
    /// the others keep their places.
    Goes,
}

/// Something on the way is neither nothing nor what the path says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Blocked;

/// Shows everything that lies there to `see`. The fate of `json` itself is left to the caller.
/// As deep as the path is long.
pub(super) fn reach(
    parts: &[Part],
    json: &mut Json,
    see: &mut dyn FnMut(&mut Json) -> Fate,
) -> Result<Fate, Blocked> {
    let Some((part, rest)) = parts.split_first() else { return Ok(see(json)) };
    match (part, json) {
        (_, Json::Null) => {}
        (Part::Name(name), Json::Object(map)) => {
            if let Some(value) = map.get_mut(name)
                && reach(rest, value, see)? == Fate::Goes
            {
                // Unlike `remove`, this keeps the others in order.
                map.retain(|other, _| other != name);
            }
        }
        (Part::Item(index), Json::Array(items)) => {
            if let Some(item) = items.get_mut(*index) {
                in_list(rest, item, see)?;
            }
        }
        (Part::Each, Json::Array(items)) => {
            items.iter_mut().try_for_each(|item| in_list(rest, item, see))?;
        }
        (Part::Each, Json::Object(map)) => {
            let mut blocked = Ok(());
            map.retain(|_, value| match reach(rest, value, see) {
                Ok(fate) => fate == Fate::Stays,
                Err(Blocked) => {
                    blocked = Err(Blocked);
                    true
                }
            });
            blocked?;
        }
        _ => return Err(Blocked),
    }
    Ok(Fate::Stays)
}

fn in_list(
    rest: &[Part],
    item: &mut Json,
    see: &mut dyn FnMut(&mut Json) -> Fate,
) -> Result<(), Blocked> {
    if reach(rest, item, see)? == Fate::Goes {
        *item = Json::Null;
    }
    Ok(())
}
