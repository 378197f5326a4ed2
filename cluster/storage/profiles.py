def load_profiles(store):
    return []


def save_profile(store, profile):
    pass
