//! Which pages are worth rewriting, and in which groups.
//!
//! The pages are looked at in the order in which they belong. Neighbours in that order that lie in one frame are a
//! *run*. A run is good if it has at least half the pages that a frame is given, and its frame is not wasted: it lies
//! in a segment worth keeping, and most of its pages are still needed. What is between two good runs is rewritten, in
//! frames of equal size, if there is anything of a wasted frame in it, or if it is in more pieces than need be.
//!
//! What comes of it is good by the same rules, so looking again finds nothing to do. That is what makes compaction end.

/// Where a page is: its number, and which frame of a list holds it.
pub(super) type Placed = (u32, u32);

/// What is known of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// How many pages it holds, needed or not.
    pub(super) page_count: u32,
    /// It lies where it should not stay.
    pub(super) is_poor: bool,
    /// Not all of its pages are in sight, so nobody can say how many are needed.
    pub(super) is_cut: bool,
}

/// Less than 5/6 of a frame or a segment being needed, the store would hold over 1.2 times what a fresh import takes.
pub(super) fn is_wasted(needed: u64, whole: u64) -> bool {
    whole.saturating_sub(needed).saturating_mul(6) > whole
}

struct Run {
    from: usize,
    len: usize,
    frame: usize,
}

/// The groups of pages to be rewritten, in order, each to be one frame of at most `group` pages, an even number or 1.
pub(super) fn plan(sequence: &[Placed], frames: &[Facts], group: usize) -> Vec<Vec<u32>> {
    let runs = runs(sequence);
    let mut wasted: Vec<bool> = frames.iter().map(|frame| frame.is_poor).collect();
    // At first all runs stay.
    let mut stretches = Vec::new();
    loop {
        let mut needed = vec![0u64; frames.len()];
        let mut next = stretches.iter().flat_map(|stretch: &std::ops::Range<usize>| stretch.clone()).peekable();
        for (n, run) in runs.iter().enumerate() {
            if next.next_if_eq(&n).is_none() {
                needed[run.frame] += run.len as u64;
            }
        }
        let mut more = false;
        for (n, frame) in frames.iter().enumerate() {
            let is_wasted = needed[n] > 0 && !frame.is_cut && is_wasted(needed[n], frame.page_count.into());
            if is_wasted && !wasted[n] {
                (wasted[n], more) = (true, true);
            }
        }
        if !more && !stretches.is_empty() {
            break;
        }
        let found = worth_rewriting(&runs, &wasted, group);
        if found == stretches {
            break;
        }
        stretches = found;
    }
    let mut groups = Vec::new();
    for stretch in stretches {
        let from = runs[stretch.start].from;
        let last = &runs[stretch.end - 1];
        split(&sequence[from..last.from + last.len], group, &mut groups);
    }
    groups
}

fn runs(sequence: &[Placed]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (n, (_, frame)) in sequence.iter().enumerate() {
        match runs.last_mut() {
            Some(run) if run.frame == *frame as usize => run.len += 1,
            _ => runs.push(Run { from: n, len: 1, frame: *frame as usize }),
        }
    }
    runs
}

/// The stretches of runs between good ones that are to be rewritten.
fn worth_rewriting(runs: &[Run], wasted: &[bool], group: usize) -> Vec<std::ops::Range<usize>> {
    let is_good = |run: &Run| !wasted[run.frame] && run.len * 2 >= group;
    let mut found = Vec::new();
    let mut from = 0;
    while from < runs.len() {
        if is_good(&runs[from]) {
            from += 1;
            continue;
        }
        let end = runs[from..].iter().position(is_good).map_or(runs.len(), |n| from + n);
        let stretch = &runs[from..end];
        let pages: usize = stretch.iter().map(|run| run.len).sum();
        if stretch.iter().any(|run| wasted[run.frame]) || stretch.len() > pages.div_ceil(group) {
            found.push(from..end);
        }
        from = end;
    }
    found
}

/// Splits pages into as few groups as they need, of nearly equal size.
fn split(pages: &[Placed], group: usize, groups: &mut Vec<Vec<u32>>) {
    let count = pages.len().div_ceil(group);
    for n in 0..count {
        let part = &pages[pages.len() * n / count..pages.len() * (n + 1) / count];
        groups.push(part.iter().map(|(page, _)| *page).collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SOUND: Facts = Facts { page_count: 4, is_poor: false, is_cut: false };

    fn placed(frames: &[u32]) -> Vec<Placed> {
        (1..).zip(frames.iter().copied()).collect()
    }

    /// The same pages once the groups are rewritten.
    fn applied(sequence: &[Placed], frames: &[Facts], groups: &[Vec<u32>]) -> (Vec<Placed>, Vec<Facts>) {
        let (mut sequence, mut frames) = (sequence.to_vec(), frames.to_vec());
        for group in groups {
            for (page, frame) in &mut sequence {
                if group.contains(page) {
                    *frame = frames.len() as u32;
                }
            }
            frames.push(Facts { page_count: group.len() as u32, is_poor: false, is_cut: false });
        }
        (sequence, frames)
    }

    #[test]
    fn full_frames_in_order_stay() {
        assert!(
            plan(&placed(&[0, 0, 0, 0, 1, 1, 1, 1, 2]), &[SOUND, SOUND, Facts { page_count: 1, ..SOUND }], 4)
                .is_empty()
        );
        assert!(plan(&[], &[], 4).is_empty());
    }

    #[test]
    fn what_lies_in_a_poor_place_moves_and_its_neighbours_stay() {
        let poor = Facts { is_poor: true, page_count: 4, is_cut: false };
        let groups = plan(&placed(&[0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]), &[SOUND, poor, SOUND], 4);
        assert_eq!(groups, [[5, 6, 7, 8]]);
    }

    #[test]
    fn frames_that_are_hardly_needed_move() {
        let large = Facts { page_count: 8, ..SOUND };
        assert_eq!(plan(&placed(&[0, 0, 0, 0, 1, 1, 1, 1]), &[SOUND, large], 4), [[5, 6, 7, 8]]);
        assert!(plan(&placed(&[0, 0, 0, 0, 1, 1, 1, 1]), &[SOUND, Facts { is_cut: true, ..large }], 4).is_empty());
    }

    #[test]
    fn scattered_pages_come_together() {
        let single = Facts { page_count: 1, ..SOUND };
        assert_eq!(plan(&placed(&[0, 1, 2, 3, 4]), &[single; 5], 4), [vec![1, 2], vec![3, 4, 5]]);
    }

    #[test]
    fn a_frame_of_which_much_moves_moves_as_a_whole() {
        let poor = Facts { is_poor: true, page_count: 1, is_cut: false };
        let twelve = Facts { page_count: 12, ..SOUND };
        // One of its pages may be lost; but with the fourth one the three before it would go too.
        let sequence = [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2];
        assert_eq!(plan(&placed(&sequence), &[poor, twelve, SOUND], 4), [[1]]);
        let sequence = [1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2];
        let groups = plan(&placed(&sequence), &[poor, twelve, SOUND], 8);
        assert_eq!(groups, [vec![1, 2, 3, 4, 5, 6], vec![7, 8, 9, 10, 11, 12]]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Whatever lies wherever: each page is rewritten at most once, in its order, and then nothing is worth it.
        #[test]
        fn looking_again_finds_nothing_to_do(
            frames in proptest::collection::vec((0u32..12, 1usize..20), 0..40),
            poor in any::<u16>(),
            dead in proptest::collection::vec(0u32..10, 12),
            half in 1usize..9,
        ) {
            let sequence: Vec<u32> = frames.iter().flat_map(|(frame, len)| std::iter::repeat_n(*frame, *len)).collect();
            let sequence = placed(&sequence);
            let facts: Vec<Facts> = (0..12u32).map(|n| {
                let needed = sequence.iter().filter(|(_, frame)| *frame == n).count() as u32;
                Facts { page_count: needed + dead[n as usize] + 1, is_poor: poor >> n & 1 == 1, is_cut: n == 11 }
            }).collect();
            let group = half * 2;
            let groups = plan(&sequence, &facts, group);
            let moved: Vec<u32> = groups.iter().flatten().copied().collect();
            prop_assert!(moved.is_sorted_by(|a, b| a < b));
            prop_assert!(groups.iter().all(|pages| !pages.is_empty() && pages.len() <= group));
            for (page, frame) in &sequence {
                prop_assert!(moved.contains(page) || !facts[*frame as usize].is_poor);
            }
            let (sequence, facts) = applied(&sequence, &facts, &groups);
            prop_assert_eq!(plan(&sequence, &facts, group), Vec::<Vec<u32>>::new());
        }
    }
}
