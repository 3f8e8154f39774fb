//! Whether values can be chosen, one for each field, such that none lie in different elements of
//! one array.
//!
//! Fields that lie in one array must agree on an element of it, and then on one of each array
//! within that element: every value is looked at once for each level that it lies deep.

/// An element of an array. In the order of the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Step {
    /// Which array.
    pub(super) array: u32,
    /// Which element of it; no two elements of an event have one number.
    pub(super) element: u32,
}

/// Where one field may be: for each place the elements that it lies in, from the outside in; sorted.
type Places<'p> = Vec<&'p [Step]>;

/// Tries where names are repeated or have dots, so that a field can lie in one of several arrays of
/// one object. The work could grow beyond all bounds then; an event that needs more does not match.
const TRIES_MAX: usize = 500;

/// `fields` has at least one place for each field; these get sorted.
pub(super) fn together(fields: &mut [Vec<Vec<Step>>]) -> bool {
    fields.iter_mut().for_each(|places| places.sort_unstable());
    let fields = fields.iter().map(|places| places.iter().map(Vec::as_slice).collect());
    agree(fields.collect(), &mut { TRIES_MAX })
}

fn agree(mut fields: Vec<Places<'_>>, tries: &mut usize) -> bool {
    // What lies in no array goes with all others.
    fields.retain(|places| array(places.first()).is_some());
    if fields.iter().any(|places| array(places.first()) != array(places.last())) {
        return meet(&fields, true, tries);
    }
    fields.sort_by_key(|places| array(places.first()));
    let mut groups = fields.chunk_by(|one, other| array(one.first()) == array(other.first()));
    groups.all(|group| group.len() < 2 || meet(group, false, tries))
}

fn array(place: Option<&&[Step]>) -> Option<u32> {
    place.and_then(|place| place.first()).map(|step| step.array)
}

/// Whether the fields agree on an element of the first array that one of them lies in.
fn meet(fields: &[Places<'_>], counted: bool, tries: &mut usize) -> bool {
    let first = fields.first().and_then(|places| array(places.first()));
    let steps = fields.iter().flatten().filter_map(|place| place.first());
    let mut elements: Vec<Step> = steps.filter(|step| Some(step.array) == first).copied().collect();
    elements.sort_unstable();
    elements.dedup();
    elements.into_iter().any(|element| {
        if counted {
            let Some(left) = tries.checked_sub(1) else { return false };
            *tries = left;
        }
        let left: Option<_> = fields.iter().map(|places| left(places, element)).collect();
        left.is_some_and(|fields| agree(fields, tries))
    })
}

/// Where a field can still be, now that this element of an array is chosen, and in it.
fn left<'p>(places: &Places<'p>, chosen: Step) -> Option<Places<'p>> {
    let until = |is_before: &dyn Fn(&Step) -> bool| {
        places.partition_point(|place| place.first().is_some_and(is_before))
    };
    let array = until(&|step| step.array < chosen.array)..until(&|step| step.array <= chosen.array);
    let element = until(&|step| *step < chosen)..until(&|step| *step <= chosen);
    let inside = places[element].iter().map(|place| place.get(1..).unwrap_or_default());
    let mut left: Places<'p> = inside.collect();
    if array.len() < places.len() {
        left.extend(&places[..array.start]);
        left.extend(&places[array.end..]);
        left.sort_unstable();
    }
    (!left.is_empty()).then_some(left)
}
